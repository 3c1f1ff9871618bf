//! Lines over whole numbers: epochs, batch sizes.

use maud::{Markup, html};

use super::{Chart, Frame, path};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 236.0;
/// Points of a line, about: finer steps cannot be seen.
const POINTS: usize = 400;
/// A line of more points has no dots.
const MOST_DOTS: usize = 60;

/// One line of a chart.
pub struct Line {
    /// Its name.
    pub name: &'static str,
    /// Place on the horizontal axis and value, ascending; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// Up to three lines, of which those without points are not shown.
pub struct Lines<'a> {
    /// What it shows, for those who cannot see it.
    pub label: &'a str,
    pub x_name: &'a str,
    pub y_name: &'a str,
    /// The top of the value axis; `None` fits it to the lines.
    pub y_max: Option<f64>,
    pub series: Vec<Line>,
    /// Where something begins that is worth a mark.
    pub marks: &'a [f64],
    /// The best of the places, if one is.
    pub best: Option<f64>,
}

/// The lines from 0 up.
pub fn line_chart(chart: &Lines) -> Chart {
    let finite = |line: &Line| Line {
        name: line.name,
        points: line
            .points
            .iter()
            .filter(|(_, y)| y.is_finite())
            .copied()
            .collect(),
    };
    let lines: Vec<Line> = chart.series.iter().map(finite).collect();
    let shown = || lines.iter().filter(|line| !line.points.is_empty());
    let plot = Plot::of(chart, shown().flat_map(|line| &line.points));
    let names: Vec<&str> = shown().map(|line| line.name).collect();
    Chart {
        width: WIDTH,
        height: HEIGHT,
        label: chart.label.to_owned(),
        body: html! {
            (plot.axes(chart))
            @for mark in chart.marks {
                line.mark x1=(plot.x(*mark)) x2=(plot.x(*mark)) y1=(plot.frame.top)
                    y2=(plot.frame.bottom()) {}
            }
            @if let Some(best) = chart.best {
                @let x = plot.x(best);
                path.dashed d=(path([0.0, 1.0].into_iter().map(|s| (x, plot.frame.y(s))))) {}
                text.tick.middle x=(x.clamp(60.0, WIDTH - 32.0)) y=(plot.frame.top - 4.0) {
                    "best: " (best)
                }
            }
            @for (number, line) in lines.iter().enumerate() { (plot.line(number, line)) }
            @if names.len() > 1 || names != [chart.y_name] { (legend(&lines)) }
        },
    }
}

/// The names of the lines that have points, in a row at the top.
fn legend(lines: &[Line]) -> Markup {
    let shown = lines.iter().enumerate();
    let shown = shown.filter(|(_, line)| !line.points.is_empty());
    html! {
        @for (place, (number, line)) in shown.enumerate() {
            @let x = 44.0 + 118.0 * place as f64;
            path class=(class(number)) d=(path([(x, 8.5), (x + 20.0, 8.5)].into_iter())) {}
            text x=(x + 25.0) y="12" { (line.name) }
        }
    }
}

/// The look of the line of that number.
fn class(number: usize) -> &'static str {
    ["curve", "curve second", "curve third"][number.min(2)]
}

/// A drawing area and what its axes stand for.
struct Plot {
    frame: Frame,
    from: f64,
    to: f64,
    top: f64,
    x_step: f64,
    y_step: f64,
}

impl Plot {
    fn of<'a>(chart: &Lines, points: impl Iterator<Item = &'a (f64, f64)>) -> Self {
        let (mut first, mut last, mut highest) = (f64::INFINITY, 0.0_f64, 0.0_f64);
        for (x, y) in points {
            first = first.min(*x);
            last = last.max(*x);
            highest = highest.max(*y);
        }
        // A single point stands in the middle.
        let (from, to) = if first < last {
            (first, last)
        } else {
            (last - 1.0, last + 1.0)
        };
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let y_step = step(chart.y_max.unwrap_or(highest), 5.0);
        let fitted = (highest / y_step).ceil() * y_step;
        let fitted = if fitted.is_finite() { fitted } else { highest };
        Self {
            frame: Frame {
                left: 44.0,
                top: 30.0,
                width: WIDTH - 44.0 - 12.0,
                height: HEIGHT - 30.0 - 32.0,
            },
            from,
            to,
            top: chart.y_max.unwrap_or(fitted),
            x_step: step(to - from, 8.0).max(1.0),
            y_step,
        }
    }

    fn x(&self, value: f64) -> f64 {
        self.frame.x((value - self.from) / (self.to - self.from))
    }

    fn y(&self, value: f64) -> f64 {
        self.frame.y(value / self.top)
    }

    /// Grid lines, numbers and names.
    fn axes(&self, chart: &Lines) -> Markup {
        let (left, right) = (self.frame.left, self.frame.left + self.frame.width);
        let bottom = self.frame.bottom();
        let count = (self.top / self.y_step + 1e-9).floor() as usize;
        let values = (0..=count).map(|number| number as f64 * self.y_step);
        let mut place = (self.from / self.x_step).ceil() * self.x_step;
        let mut places = Vec::new();
        while place <= self.to {
            places.push(place);
            place += self.x_step;
        }
        html! {
            @for value in values {
                @let y = self.y(value);
                line.grid x1=(left) x2=(right) y1=(y) y2=(y) {}
                text.tick.end x=(left - 5.0) y=(y + 3.5) { (decimal(value, self.y_step)) }
            }
            @for place in places {
                text.tick.middle x=(self.x(place)) y=(bottom + 13.0) { (place) }
            }
            text.axis.middle x=(f64::midpoint(left, right)) y=(bottom + 27.0) { (chart.x_name) }
            (self.frame.y_name(chart.y_name))
        }
    }

    fn line(&self, number: usize, line: &Line) -> Markup {
        let points = thinned(&line.points);
        let dots = points.len() <= MOST_DOTS;
        html! {
            @if points.len() > 1 {
                path class=(class(number))
                    d=(path(points.iter().map(|(x, y)| (self.x(*x), self.y(*y))))) {}
            }
            @if dots {
                @for (x, y) in &points {
                    circle class=(["one", "two", "three"][number.min(2)]) cx=(self.x(*x))
                        cy=(self.y(*y)) r="2.2" {
                        title { (line.name) ", " (x) ": " (significant(*y)) }
                    }
                }
            }
        }
    }
}

/// Of many points the lowest and the highest of each few, so that no spike is lost.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    let group = points.len().div_ceil(POINTS / 2);
    let mut kept = Vec::new();
    for group in points.chunks(group) {
        let value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends = [group.iter().min_by(value), group.iter().max_by(value)];
        let mut ends: Vec<(f64, f64)> = ends.into_iter().flatten().copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        kept.extend(ends);
    }
    kept
}

/// The smallest of 1, 2, 5, 10, … (or tenths of them) that goes into `range` at most `most` times.
fn step(range: f64, most: f64) -> f64 {
    let least = range / most;
    let power = 10.0_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|digit| digit * power);
    let fits = steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9));
    fits.unwrap_or(10.0 * power)
}

/// A multiple of `step`, with as many digits as `step` has.
fn decimal(value: f64, step: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    if (1e-4..1e5).contains(&step) {
        let digits = (-step.log10().floor()).max(0.0) as usize;
        return format!("{value:.digits$}");
    }
    format!("{value:.1e}").replace(".0e", "e")
}

/// Four digits that matter.
pub fn significant(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let digits = 3.0 - value.abs().log10().floor();
    if (0.0..=8.0).contains(&digits) {
        let digits = digits as usize;
        return format!("{value:.digits$}");
    }
    if digits < 0.0 && value.abs() < 1e9 {
        return format!("{value:.0}");
    }
    format!("{value:.3e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_numbers_are_round() {
        for (range, most, expected) in [
            (1.0, 4.0, 0.5),
            (0.7, 4.0, 0.2),
            (299.0, 8.0, 50.0),
            (8e-5, 4.0, 2e-5),
        ] {
            let found = step(range, most);
            assert!((found / expected - 1.0).abs() < 1e-9, "{range}: {found}");
        }
        assert_eq!(decimal(0.1 + 0.2, 0.1), "0.3");
        assert_eq!(decimal(200.0, 100.0), "200");
        assert_eq!(decimal(1.5e-4, 5e-5), "1.5e-4");
        assert_eq!(decimal(2e5, 1e5), "2e5");
        for (value, expected) in [
            (0.123_456, "0.1235"),
            (12_345.6, "12346"),
            (0.0, "0"),
            (1e-7, "1.000e-7"),
            (1e12, "1.000e12"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(significant(value), expected);
        }
    }

    #[test]
    fn a_thinned_line_keeps_its_ends_and_spikes() {
        let mut points: Vec<_> = (0..5000).map(|x| (f64::from(x), 0.5)).collect();
        points[1234].1 = 9.0;
        points[3210].1 = 0.0;
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS, "{}", thin.len());
        assert!(thin.contains(&(1234.0, 9.0)) && thin.contains(&(3210.0, 0.0)));
        assert!(thin.is_sorted_by(|a, b| a.0 < b.0));
        assert!(thin[0].0 < 26.0 && thin[thin.len() - 1].0 > 4973.0);
        assert_eq!(thinned(&points[..400]), points[..400]);
    }
}

//! Line charts over integers: epochs, batch sizes.

use maud::{Markup, html};

use super::{Chart, PlotArea, path};

const WIDTH: f64 = 400.0;
const HEIGHT: f64 = 236.0;
/// Approximate limit of points per line. Finer steps are not visible.
const MAX_POINTS: usize = 400;
/// Lines with more points have no dots.
const MAX_DOTS: usize = 60;

/// One line of a chart.
pub struct ChartLine {
    pub name: &'static str,
    /// Horizontal position and value, in ascending order of position. Values that are not finite are
    /// omitted.
    pub points: Vec<(f64, f64)>,
}

/// A chart of up to three lines. Lines without points are not drawn.
pub struct LineChart<'a> {
    /// Description for screen readers.
    pub label: &'a str,
    pub x_name: &'a str,
    pub y_name: &'a str,
    /// Upper end of the vertical axis; `None` fits it to the lines.
    pub y_max: Option<f64>,
    pub series: Vec<ChartLine>,
    /// Horizontal positions of vertical marks.
    pub marks: &'a [f64],
    /// Horizontal position of the best value.
    pub best: Option<f64>,
}

/// Draws the lines; the vertical axis starts at 0.
pub fn line_chart(chart: &LineChart) -> Chart {
    let finite = |line: &ChartLine| ChartLine {
        name: line.name,
        points: line
            .points
            .iter()
            .filter(|(_, y)| y.is_finite())
            .copied()
            .collect(),
    };
    let lines: Vec<ChartLine> = chart.series.iter().map(finite).collect();
    let visible = || lines.iter().filter(|line| !line.points.is_empty());
    let plot = LinePlot::new(chart, visible().flat_map(|line| &line.points));
    let names: Vec<&str> = visible().map(|line| line.name).collect();
    Chart {
        width: WIDTH,
        height: HEIGHT,
        label: chart.label.to_owned(),
        body: html! {
            (plot.axes(chart))
            @for mark in chart.marks {
                line.mark x1=(plot.x(*mark)) x2=(plot.x(*mark)) y1=(plot.area.top)
                    y2=(plot.area.bottom()) {}
            }
            @if let Some(best) = chart.best {
                @let x = plot.x(best);
                path.dashed d=(path([0.0, 1.0].into_iter().map(|s| (x, plot.area.y(s))))) {}
                text.tick.middle x=(x.clamp(60.0, WIDTH - 32.0)) y=(plot.area.top - 4.0) {
                    "best: " (best)
                }
            }
            @for (number, line) in lines.iter().enumerate() { (plot.line(number, line)) }
            @if names.len() > 1 || names != [chart.y_name] { (legend(&lines)) }
        },
    }
}

/// Draws the names of the lines that have points, in a row at the top.
fn legend(lines: &[ChartLine]) -> Markup {
    let visible = lines.iter().enumerate();
    let visible = visible.filter(|(_, line)| !line.points.is_empty());
    html! {
        @for (column, (number, line)) in visible.enumerate() {
            @let x = 44.0 + 118.0 * column as f64;
            path class=(class(number)) d=(path([(x, 8.5), (x + 20.0, 8.5)].into_iter())) {}
            text x=(x + 25.0) y="12" { (line.name) }
        }
    }
}

/// Returns the CSS class of a line by its number.
fn class(number: usize) -> &'static str {
    ["curve", "curve second", "curve third"][number.min(2)]
}

/// A plot area with the scales of its axes.
struct LinePlot {
    area: PlotArea,
    x_min: f64,
    x_max: f64,
    y_max: f64,
    x_step: f64,
    y_step: f64,
}

impl LinePlot {
    fn new<'a>(chart: &LineChart, points: impl Iterator<Item = &'a (f64, f64)>) -> Self {
        let (mut first, mut last, mut highest) = (f64::INFINITY, 0.0_f64, 0.0_f64);
        for (x, y) in points {
            first = first.min(*x);
            last = last.max(*x);
            highest = highest.max(*y);
        }
        // A single point is drawn in the middle.
        let (x_min, x_max) = if first < last {
            (first, last)
        } else {
            (last - 1.0, last + 1.0)
        };
        let highest = if highest > 0.0 { highest } else { 1.0 };
        let y_step = step(chart.y_max.unwrap_or(highest), 5.0);
        let fitted = (highest / y_step).ceil() * y_step;
        let fitted = if fitted.is_finite() { fitted } else { highest };
        Self {
            area: PlotArea {
                left: 44.0,
                top: 30.0,
                width: WIDTH - 44.0 - 12.0,
                height: HEIGHT - 30.0 - 32.0,
            },
            x_min,
            x_max,
            y_max: chart.y_max.unwrap_or(fitted),
            x_step: step(x_max - x_min, 8.0).max(1.0),
            y_step,
        }
    }

    fn x(&self, value: f64) -> f64 {
        self.area
            .x((value - self.x_min) / (self.x_max - self.x_min))
    }

    fn y(&self, value: f64) -> f64 {
        self.area.y(value / self.y_max)
    }

    /// Draws grid lines, tick labels and axis names.
    fn axes(&self, chart: &LineChart) -> Markup {
        let (left, right) = (self.area.left, self.area.left + self.area.width);
        let bottom = self.area.bottom();
        let count = (self.y_max / self.y_step + 1e-9).floor() as usize;
        let values = (0..=count).map(|number| number as f64 * self.y_step);
        let mut position = (self.x_min / self.x_step).ceil() * self.x_step;
        let mut positions = Vec::new();
        while position <= self.x_max {
            positions.push(position);
            position += self.x_step;
        }
        html! {
            @for value in values {
                @let y = self.y(value);
                line.grid x1=(left) x2=(right) y1=(y) y2=(y) {}
                text.tick.end x=(left - 5.0) y=(y + 3.5) { (decimal(value, self.y_step)) }
            }
            @for position in positions {
                text.tick.middle x=(self.x(position)) y=(bottom + 13.0) { (position) }
            }
            text.axis.middle x=(f64::midpoint(left, right)) y=(bottom + 27.0) { (chart.x_name) }
            (self.area.y_name(chart.y_name))
        }
    }

    fn line(&self, number: usize, line: &ChartLine) -> Markup {
        let points = thinned(&line.points);
        let dots = points.len() <= MAX_DOTS;
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

/// Thins a long line: keeps minimum and maximum of each group of points, so that spikes remain.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let size = points.len().div_ceil(MAX_POINTS / 2);
    let mut kept = Vec::new();
    for group in points.chunks(size) {
        let value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let ends = [group.iter().min_by(value), group.iter().max_by(value)];
        let mut ends: Vec<(f64, f64)> = ends.into_iter().flatten().copied().collect();
        ends.sort_by(|a, b| a.0.total_cmp(&b.0));
        ends.dedup();
        kept.extend(ends);
    }
    kept
}

/// Returns the smallest step of the form 1, 2 or 5 × 10ⁿ that fits into `range` at most `max_steps`
/// times.
fn step(range: f64, max_steps: f64) -> f64 {
    let least = range / max_steps;
    let power = 10.0_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0].map(|digit| digit * power);
    let fits = steps.into_iter().find(|step| *step >= least * (1.0 - 1e-9));
    fits.unwrap_or(10.0 * power)
}

/// Formats a multiple of `step` with as many digits as `step` has.
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

/// Formats a value with four significant digits.
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
    fn rounds_steps_and_numbers() {
        for (range, max_steps, expected) in [
            (1.0, 4.0, 0.5),
            (0.7, 4.0, 0.2),
            (299.0, 8.0, 50.0),
            (8e-5, 4.0, 2e-5),
        ] {
            let found = step(range, max_steps);
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
    fn thinning_keeps_ends_and_spikes() {
        let mut points: Vec<_> = (0..5000).map(|x| (f64::from(x), 0.5)).collect();
        points[1234].1 = 9.0;
        points[3210].1 = 0.0;
        let thin = thinned(&points);
        assert!(thin.len() <= MAX_POINTS, "{}", thin.len());
        assert!(thin.contains(&(1234.0, 9.0)) && thin.contains(&(3210.0, 0.0)));
        assert!(thin.is_sorted_by(|a, b| a.0 < b.0));
        assert!(thin[0].0 < 26.0 && thin[thin.len() - 1].0 > 4973.0);
        assert_eq!(thinned(&points[..400]), points[..400]);
    }
}

//! Precision against recall, probability against truth, and how probabilities lie.

use maud::html;

use super::{Chart, Frame, path, round};
use crate::metrics::{Calibration, Labelled, Ranking};

/// Points of a curve: finer steps cannot be seen.
const POINTS: usize = 150;
/// Bars of a histogram.
const BINS: usize = 20;

/// A class's precision at each recall; dashed, what guessing reaches.
pub fn precision_recall(data: &Labelled, class: usize) -> Chart {
    let frame = Frame {
        left: 28.0,
        top: 6.0,
        width: 150.0,
        height: 96.0,
    };
    let ranking = Ranking::new(data, class);
    let curve = ranking.precision_recall(POINTS);
    let prevalence = ranking.positives() as f64 / data.samples().max(1) as f64;
    // Steps, as the average precision counts them: a precision holds from the recall before.
    let before = std::iter::once(0.0).chain(curve.iter().map(|(recall, _)| *recall));
    let steps = before.zip(&curve);
    let points: Vec<_> = steps
        .flat_map(|(from, (to, precision))| [(from, *precision), (*to, *precision)])
        .map(|(recall, precision)| (frame.x(recall), frame.y(precision)))
        .collect();
    Chart {
        width: 190.0,
        height: 132.0,
        label: "precision against recall".into(),
        body: html! {
            (frame.axes("recall", Some("precision")))
            @if points.is_empty() {
                text.tick.middle x=(frame.x(0.5)) y=(frame.y(0.5) - 6.0) { "no sample has it" }
            } @else {
                path.dashed d=(path([(0.0, prevalence), (1.0, prevalence)].into_iter()
                    .map(|(x, y)| (frame.x(x), frame.y(y))))) {}
                path.curve d=(path(points.into_iter())) {}
            }
        },
    }
}

/// How many samples have which probability: those that have the class above the line, the others
/// below, on a root scale, so that few are seen beside many.
pub fn histogram(data: &Labelled, class: usize) -> Chart {
    let mut counts = [[0_u32; BINS]; 2];
    for (probability, truth) in data.column(class) {
        let bin = ((probability * BINS as f32) as usize).min(BINS - 1);
        counts[usize::from(truth)][bin] += 1;
    }
    let frame = Frame {
        left: 28.0,
        top: 4.0,
        width: 150.0,
        height: 64.0,
    };
    let middle = frame.top + frame.height / 2.0;
    let highest = counts.iter().flatten().max().copied().unwrap_or(0).max(1);
    let height = |count: u32| {
        let share = f64::from(count) / f64::from(highest);
        round(share.sqrt() * frame.height / 2.0)
    };
    let bar = frame.width / BINS as f64;
    Chart {
        width: 190.0,
        height: 100.0,
        label: "how many samples have which probability".into(),
        body: html! {
            (frame.axes("probability", None))
            @for (truth, bins) in counts.iter().enumerate() {
                @for (bin, &count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
                    @let y = if truth == 1 { middle - height(count) } else { middle };
                    rect class=(if truth == 1 { "one" } else { "two soft" })
                        x=(round(frame.left + bar * bin as f64 + 0.5)) y=(round(y))
                        width=(round(bar - 1.0)) height=(height(count)) {
                        title {
                            (count) (if truth == 1 { " with" } else { " without" }) " the class, "
                            (format!("{:.2} to {:.2}", bin as f64 / BINS as f64,
                                (bin + 1) as f64 / BINS as f64))
                        }
                    }
                }
            }
            line.grid x1=(frame.left) x2=(frame.left + frame.width) y1=(middle) y2=(middle) {}
        },
    }
}

/// The share that is true of what was called probable; below, how many probabilities there are.
pub fn calibration(calibration: &Calibration) -> Chart {
    let frame = Frame {
        left: 34.0,
        top: 8.0,
        width: 310.0,
        height: 220.0,
    };
    let filled = calibration.bins.iter().filter(|bin| bin.count > 0);
    let points: Vec<_> = filled
        .map(|bin| (frame.x(bin.mean_probability), frame.y(bin.share_true), bin))
        .collect();
    let most = points.iter().map(|(.., bin)| bin.count).max().unwrap_or(1);
    Chart {
        width: 360.0,
        height: 262.0,
        label: "share that is true against mean probability".into(),
        body: html! {
            (frame.axes("mean probability", Some("share that is true")))
            path.dashed d=(path([0.0, 1.0].into_iter().map(|s| (frame.x(s), frame.y(s))))) {}
            path.curve d=(path(points.iter().map(|(x, y, _)| (*x, *y)))) {}
            @for (x, y, bin) in points {
                @let radius = 2.5 + 4.0 * (bin.count as f64 / most as f64).sqrt();
                circle.one cx=(x) cy=(y) r=(round(radius)) {
                    title {
                        (bin.count) (format!(" probabilities, {:.3} on average; {:.3} of them true",
                            bin.mean_probability, bin.share_true))
                    }
                }
            }
        },
    }
}

//! Precision-recall curves, histograms of probabilities, calibration curves.

use maud::html;

use super::{Chart, PlotArea, path, round};
use crate::metrics::{Calibration, Labelled, Ranking};

/// Points of a curve. Finer steps are not visible.
const MAX_POINTS: usize = 150;
/// Bins of a histogram.
const BINS: usize = 20;

/// Draws the precision-recall curve of a class. The dashed line is the prevalence, which random
/// predictions reach.
pub fn precision_recall(data: &Labelled, class: usize) -> Chart {
    let area = PlotArea {
        left: 28.0,
        top: 6.0,
        width: 150.0,
        height: 96.0,
    };
    let ranking = Ranking::new(data, class);
    let curve = ranking.precision_recall(MAX_POINTS);
    let prevalence = ranking.positives() as f64 / data.samples().max(1) as f64;
    // A step function, as in average precision: a precision holds from the previous recall.
    let previous = std::iter::once(0.0).chain(curve.iter().map(|(recall, _)| *recall));
    let steps = previous.zip(&curve);
    let points: Vec<_> = steps
        .flat_map(|(from, (to, precision))| [(from, *precision), (*to, *precision)])
        .map(|(recall, precision)| (area.x(recall), area.y(precision)))
        .collect();
    Chart {
        width: 190.0,
        height: 132.0,
        label: "precision-recall curve".into(),
        body: html! {
            (area.axes("recall", Some("precision")))
            @if points.is_empty() {
                text.tick.middle x=(area.x(0.5)) y=(area.y(0.5) - 6.0) { "no positive samples" }
            } @else {
                path.dashed d=(path([(0.0, prevalence), (1.0, prevalence)].into_iter()
                    .map(|(x, y)| (area.x(x), area.y(y))))) {}
                path.curve d=(path(points.into_iter())) {}
            }
        },
    }
}

/// Draws the distribution of a class's probabilities: samples with the class above the line, the
/// others below. Counts have a square-root scale, so that small bins stay visible.
pub fn histogram(data: &Labelled, class: usize) -> Chart {
    let mut counts = [[0_u32; BINS]; 2];
    for (probability, truth) in data.column(class) {
        let bin = ((probability * BINS as f32) as usize).min(BINS - 1);
        counts[usize::from(truth)][bin] += 1;
    }
    let area = PlotArea {
        left: 28.0,
        top: 4.0,
        width: 150.0,
        height: 64.0,
    };
    let middle = area.top + area.height / 2.0;
    let highest = counts.iter().flatten().max().copied().unwrap_or(0).max(1);
    let height = |count: u32| {
        let share = f64::from(count) / f64::from(highest);
        round(share.sqrt() * area.height / 2.0)
    };
    let bar = area.width / BINS as f64;
    Chart {
        width: 190.0,
        height: 100.0,
        label: "histogram of probabilities".into(),
        body: html! {
            (area.axes("probability", None))
            @for (truth, bins) in counts.iter().enumerate() {
                @for (bin, &count) in bins.iter().enumerate().filter(|(_, count)| **count > 0) {
                    @let y = if truth == 1 { middle - height(count) } else { middle };
                    rect class=(if truth == 1 { "one" } else { "two soft" })
                        x=(round(area.left + bar * bin as f64 + 0.5)) y=(round(y))
                        width=(round(bar - 1.0)) height=(height(count)) {
                        title {
                            (count) (if truth == 1 { " with" } else { " without" }) " the class, "
                            (format!("{:.2} to {:.2}", bin as f64 / BINS as f64,
                                (bin + 1) as f64 / BINS as f64))
                        }
                    }
                }
            }
            line.grid x1=(area.left) x2=(area.left + area.width) y1=(middle) y2=(middle) {}
        },
    }
}

/// Draws the share of positives against the mean probability of each bin. The size of a dot shows
/// the number of probabilities.
pub fn calibration(calibration: &Calibration) -> Chart {
    let area = PlotArea {
        left: 34.0,
        top: 8.0,
        width: 310.0,
        height: 220.0,
    };
    let occupied = calibration.bins.iter().filter(|bin| bin.count > 0);
    let points: Vec<_> = occupied
        .map(|bin| (area.x(bin.mean_probability), area.y(bin.share_true), bin))
        .collect();
    let largest = points.iter().map(|(.., bin)| bin.count).max().unwrap_or(1);
    Chart {
        width: 360.0,
        height: 262.0,
        label: "share of positives against mean probability".into(),
        body: html! {
            (area.axes("mean probability", Some("share of positives")))
            path.dashed d=(path([0.0, 1.0].into_iter().map(|s| (area.x(s), area.y(s))))) {}
            path.curve d=(path(points.iter().map(|(x, y, _)| (*x, *y)))) {}
            @for (x, y, bin) in points {
                @let radius = 2.5 + 4.0 * (bin.count as f64 / largest as f64).sqrt();
                circle.one cx=(x) cy=(y) r=(round(radius)) {
                    title {
                        (bin.count) (format!(" probabilities, mean {:.3}; share of positives {:.3}",
                            bin.mean_probability, bin.share_true))
                    }
                }
            }
        },
    }
}

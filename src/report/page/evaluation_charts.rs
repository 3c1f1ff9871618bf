//! Charts of an evaluation, as sections of the page and as files.

use maud::{Markup, html};

use super::{EvaluationPage, or_dash};
use crate::metrics::{Calibration, Labelled, cooccurrence};
use crate::report::chart::{
    Chart, ClassBar, calibration as calibration_chart, class_bars, grid, heat_map, histogram,
    precision_recall,
};

/// Charts per row in a file.
const COLUMNS: usize = 5;

/// Returns the charts by file name.
pub(super) fn files(page: &EvaluationPage) -> Vec<(&'static str, Chart)> {
    let each = |draw: fn(&Labelled, usize) -> Chart| -> Vec<(String, Chart)> {
        let classes = page.charted().into_iter();
        let named = |class: usize| (page.classes[class].clone(), draw(&page.data, class));
        classes.map(named).collect()
    };
    let [labels, predictions] = heat_maps(page);
    let maps = [
        ("Labels".to_owned(), labels),
        ("Predictions".to_owned(), predictions),
    ];
    vec![
        ("class_f1.svg", bars(page)),
        ("calibration.svg", reliability(page)),
        (
            "cooccurrence.svg",
            grid("co-occurrence of classes", 2, &maps),
        ),
        (
            "precision_recall.svg",
            grid("precision-recall curves", COLUMNS, &each(precision_recall)),
        ),
        (
            "scores.svg",
            grid("histograms of probabilities", COLUMNS, &each(histogram)),
        ),
    ]
}

fn bars(page: &EvaluationPage) -> Chart {
    let shown = page.shown();
    let bar = |class: usize| ClassBar {
        name: &page.classes[class],
        value: shown.evaluation.classes[class].f1,
        interval: shown.intervals.as_ref().map(|i| i.classes[class]),
        support: shown.evaluation.classes[class].support(),
    };
    let bars: Vec<_> = page.charted().into_iter().map(bar).collect();
    class_bars(&bars)
}

pub(super) fn classes(page: &EvaluationPage) -> Markup {
    html! {
        section {
            h2 { "F1 by class" }
            p.muted.small { "F1 with 95 % confidence intervals." (class_limit(page)) }
            (bars(page).svg())
        }
    }
}

fn reliability(page: &EvaluationPage) -> Chart {
    calibration_chart(&Calibration::of_all(&page.data))
}

pub(super) fn calibration(page: &EvaluationPage) -> Markup {
    let e = &page.shown().evaluation;
    html! {
        section {
            h2 { "Calibration" }
            p.muted.small {
                "Of all samples with a probability of 80 %, 80 % should have the class (dashed line). "
                "Larger dots stand for more probabilities. Expected calibration error: "
                (format!("{:.4}", e.calibration_error)) " over all probabilities, "
                (format!("{:.4}", e.mean_calibration_error)) " on average over the classes."
            }
            (reliability(page).svg())
        }
    }
}

fn heat_maps(page: &EvaluationPage) -> [Chart; 2] {
    let classes = page.charted();
    let names: Vec<_> = classes
        .iter()
        .map(|&class| (class, page.classes[class].as_str()))
        .collect();
    let map = |label, sets: &[Vec<u16>]| {
        let full = cooccurrence(sets, page.classes.len());
        let shares: Vec<Vec<f64>> = classes
            .iter()
            .map(|&row| classes.iter().map(|&column| full[row][column]).collect())
            .collect();
        heat_map(label, &names, &shares)
    };
    let decisions = &page.shown().decisions;
    [
        map("co-occurrence of classes in the labels", &decisions.truth()),
        map(
            "co-occurrence of classes in the predictions",
            &decisions.predicted(),
        ),
    ]
}

pub(super) fn cooccurrences(page: &EvaluationPage) -> Markup {
    let [labels, predictions] = heat_maps(page);
    html! {
        section {
            h2 { "Co-occurrence of classes" }
            p.muted.small {
                "Share of the samples with the row's class that also have the column's class; darker "
                "is more. Labels and predictions should look alike." (class_limit(page))
            }
            div.pair {
                figure { figcaption { "Labels" } (labels.svg()) }
                figure { figcaption { "Predictions" } (predictions.svg()) }
            }
        }
    }
}

pub(super) fn curves(page: &EvaluationPage) -> Markup {
    let e = &page.shown().evaluation;
    html! {
        section {
            h2 { "Precision, recall and probabilities" }
            p.muted.small {
                "Top: precision-recall curve; the dashed line is what random predictions reach. "
                "Bottom: histogram of probabilities, samples with the class above the line, the "
                "others below, on a square-root scale." (class_limit(page))
            }
            div.multiples {
                @for class in page.charted() {
                    @let c = &e.classes[class];
                    div {
                        h3 { (page.classes[class]) }
                        p.muted.small {
                            "AP " (or_dash(c.average_precision)) " · " (c.support()) " of "
                            (e.samples)
                        }
                        (precision_recall(&page.data, class).svg())
                        (histogram(&page.data, class).svg())
                    }
                }
            }
        }
    }
}

/// Returns a sentence about omitted classes, if there are any.
fn class_limit(page: &EvaluationPage) -> String {
    let shown = page.charted().len();
    if shown == page.classes.len() {
        return String::new();
    }
    format!(
        " The {shown} most frequent of {} classes.",
        page.classes.len()
    )
}

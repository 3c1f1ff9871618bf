//! The parts of the page that are charts, and the same charts as files.

use maud::{Markup, html};

use super::{EvaluationPage, or_dash};
use crate::metrics::{Calibration, Labelled, cooccurrence};
use crate::report::chart::{
    Bar, Chart, calibration as calibration_chart, class_bars, grid, heat_map, histogram,
    precision_recall,
};

/// Charts beside each other in a file.
const COLUMNS: usize = 5;

/// The charts as files, by name.
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
            grid("classes that come together", 2, &maps),
        ),
        (
            "precision_recall.svg",
            grid("precision against recall", COLUMNS, &each(precision_recall)),
        ),
        (
            "scores.svg",
            grid("how probabilities lie", COLUMNS, &each(histogram)),
        ),
    ]
}

fn bars(page: &EvaluationPage) -> Chart {
    let shown = page.shown();
    let bar = |class: usize| Bar {
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
            h2 { "Every class" }
            p.muted.small { "F1 with its 95 % interval." (limit(page)) }
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
            h2 { "Are probabilities what they say?" }
            p.muted.small {
                "Of all that was called 80 % probable, 80 % should be true: the dashed line. Larger "
                "dots stand for more probabilities. Expected calibration error "
                (format!("{:.4}", e.calibration_error)) " over all, "
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
        let all = cooccurrence(sets, page.classes.len());
        let shares: Vec<Vec<f64>> = classes
            .iter()
            .map(|&row| classes.iter().map(|&column| all[row][column]).collect())
            .collect();
        heat_map(label, &names, &shares)
    };
    let decisions = &page.shown().decisions;
    [
        map(
            "classes that come together in the labels",
            &decisions.truth(),
        ),
        map(
            "classes that come together in the predictions",
            &decisions.predicted(),
        ),
    ]
}

pub(super) fn together(page: &EvaluationPage) -> Markup {
    let [labels, predictions] = heat_maps(page);
    html! {
        section {
            h2 { "Classes that come together" }
            p.muted.small {
                "Of the samples that have the row's class, the share that has the column's; the "
                "darker the more. Both sides should look alike." (limit(page))
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
                "Above: precision against recall; dashed, what guessing reaches. Below: how many "
                "samples have which probability, those with the class upwards, the others "
                "downwards, on a root scale." (limit(page))
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

/// What to add where not all classes are shown.
fn limit(page: &EvaluationPage) -> String {
    let shown = page.charted().len();
    if shown == page.classes.len() {
        return String::new();
    }
    format!(
        " The {shown} most frequent of {} classes.",
        page.classes.len()
    )
}

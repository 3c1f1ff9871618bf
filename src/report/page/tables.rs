//! Text and tables of the page of an evaluation.

use maud::{Markup, html};

use super::{EvaluationPage, number, or_dash, tile};
use crate::metrics::{Interval, RARE_SHARE};

pub(super) fn head(page: &EvaluationPage) -> Markup {
    let shown = page.shown();
    let e = &shown.evaluation;
    let present = e.classes.iter().filter(|class| class.support() > 0).count();
    let intervals = shown.intervals.as_ref();
    html! {
        header {
            h1 { "Evaluation of " (page.subject) }
            p.muted {
                (e.samples) " samples, " (e.classes.len()) " classes, " (present)
                " of them in the labels; " (shown.name)
            }
        }
        div.tiles {
            (tile("macro-F1", &number(e.macro_f1), &range_or(intervals.map(|i| i.macro_f1), ""), true))
            (tile("chance", &number(e.chance.best()), "macro-F1 without images", false))
            (tile("micro-F1", &number(e.micro_f1), &range_or(intervals.map(|i| i.micro_f1), ""), false))
            (tile("mean AP", &or_dash(e.mean_average_precision), "no threshold needed", false))
            (tile("mean AUROC", &or_dash(e.mean_auroc), "no threshold needed", false))
            (tile("ECE", &number(e.calibration_error), "calibration error, 0 is best", false))
        }
    }
}

pub(super) fn points(page: &EvaluationPage) -> Markup {
    html! {
        section {
            h2 { "Thresholds" }
            p.muted.small {
                "A class is predicted where its probability is at least its threshold. Intervals "
                "are 95 % confidence intervals over samples."
            }
            div.scroll { table.names {
                thead { tr {
                    th { "thresholds" } th { "macro-F1" } th { "interval" } th { "micro-F1" }
                    th { "interval" } th { "Hamming loss" } th { "rare found" }
                } }
                tbody {
                    @for point in page.points {
                        @let e = &point.evaluation;
                        @let intervals = point.intervals.as_ref();
                        tr {
                            th { (point.name) }
                            td { b { (number(e.macro_f1)) } }
                            td.interval { (range_or(intervals.map(|i| i.macro_f1), "–")) }
                            td { (number(e.micro_f1)) }
                            td.interval { (range_or(intervals.map(|i| i.micro_f1), "–")) }
                            td { (number(e.hamming_loss)) }
                            td { (e.rare.found) " of " (e.rare.classes) }
                        }
                    }
                }
            } }
            p.muted.small {
                "Rare: a class of less than " (RARE_SHARE * 100.0) " % of the samples. It is found if at "
                "least one of its samples is predicted correctly."
            }
        }
    }
}

pub(super) fn classes(page: &EvaluationPage) -> Markup {
    let shown = page.shown();
    html! {
        section {
            h2 { "Metrics by class" }
            div.scroll { table.names {
                thead { tr {
                    th { "class" } th { "support" } th { "threshold" } th { "precision" }
                    th { "recall" } th { "F1" } th { "interval" } th { "AP" } th { "AUROC" }
                    th { "ECE" }
                } }
                tbody {
                    @for (index, (name, c)) in
                        page.classes.iter().zip(&shown.evaluation.classes).enumerate() {
                        @let intervals = shown.intervals.as_ref();
                        @let interval = intervals.map(|i| i.classes[index]);
                        tr {
                            th title=(name) { span.muted { (index) } " " (name) }
                            td { (c.support()) }
                            td { (format!("{:.3}", c.threshold)) }
                            td { (number(c.precision)) }
                            td { (number(c.recall)) }
                            td { b { (number(c.f1)) } }
                            td.interval { (range_or(interval, "–")) }
                            td { (or_dash(c.average_precision)) }
                            td { (or_dash(c.auroc)) }
                            td { (number(c.calibration_error)) }
                        }
                    }
                }
            } }
        }
    }
}

pub(super) fn about(page: &EvaluationPage) -> Markup {
    html! {
        section {
            h2 { "Configuration and provenance" }
            dl { @for (name, value) in &page.about { dt { (name) } dd { (value) } } }
        }
    }
}

fn range_or(interval: Option<Interval>, otherwise: &str) -> String {
    interval.map_or_else(
        || otherwise.to_owned(),
        |i| format!("{:.3} – {:.3}", i.low, i.high),
    )
}

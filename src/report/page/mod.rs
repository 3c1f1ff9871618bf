//! `report.html` of an evaluation and of a training run: one file that needs nothing beside it, and
//! its charts as files.
//!
//! A page asks for nothing from any network, which its own Content-Security-Policy enforces.
//! Whatever comes from outside (class names, ids, paths) is escaped by the template engine.

mod course;
mod figures;
mod run;
mod samples;
mod tables;
#[cfg(test)]
mod tests;

use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::ReportError;
use super::chart::{self, Chart};
use crate::atomic_file;
use crate::metrics::{Decisions, Evaluation, Intervals, Labelled};

pub use run::{RunPage, RunStatus};
pub use samples::{Card, Picked, pick};

/// How good decisions of one kind are.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatingPoint {
    /// What is decided by: `at 0.5`.
    pub name: String,
    /// What is decided.
    pub decisions: Decisions,
    /// How good that is.
    pub evaluation: Evaluation,
    /// How sure that is, if it can be said.
    pub intervals: Option<Intervals>,
}

/// All that the page of an evaluation shows.
pub struct EvaluationPage<'a> {
    /// What was judged.
    pub subject: String,
    /// Names of the classes.
    pub classes: &'a [String],
    /// Probabilities and truth.
    pub data: Labelled<'a>,
    /// At least one; the first is the one whose decisions are shown.
    pub points: &'a [OperatingPoint],
    /// What a reader should know beside the numbers.
    pub remarks: Vec<String>,
    /// Samples to look at: a heading, what they have in common, the samples.
    pub samples: Vec<(&'static str, &'static str, Vec<Card>)>,
    /// Configuration and provenance.
    pub about: Vec<(String, String)>,
}

/// Charts of single classes show this many classes at most, the most frequent ones.
const MOST_CLASSES: usize = 60;

impl EvaluationPage<'_> {
    /// Writes `report.html` into the folder `out`, and its charts into `out/plots`, which must be
    /// there.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    ///
    /// # Panics
    ///
    /// If there is no operating point.
    pub fn write(&self, out: &Path) -> Result<(), ReportError> {
        write(out, figures::files(self), self.html())
    }

    /// The decisions that are shown.
    fn shown(&self) -> &OperatingPoint {
        &self.points[0]
    }

    /// The classes in charts of single classes, in the model's order.
    fn charted(&self) -> Vec<usize> {
        let mut classes: Vec<usize> = (0..self.classes.len()).collect();
        if classes.len() > MOST_CLASSES {
            let support = |class: &usize| self.shown().evaluation.classes[*class].support();
            classes.sort_by_key(|class| std::cmp::Reverse(support(class)));
            classes.truncate(MOST_CLASSES);
            classes.sort_unstable();
        }
        classes
    }

    fn html(&self) -> Markup {
        let body = html! {
            (tables::head(self))
            (tables::points(self))
            (remarks(&self.remarks))
            (figures::classes(self))
            (tables::classes(self))
            (figures::calibration(self))
            (figures::together(self))
            (figures::curves(self))
            (samples::sections(self))
            (tables::about(self))
        };
        document(&format!("Evaluation of {}", self.subject), &body)
    }
}

/// Writes `report.html` into the folder `out`, and charts by the names of their files into
/// `out/plots`.
fn write(
    out: &Path,
    charts: impl IntoIterator<Item = (&'static str, Chart)>,
    page: Markup,
) -> Result<(), ReportError> {
    for (name, chart) in charts {
        let path = out.join("plots").join(name);
        atomic_file::write_atomic(&path, chart.file().as_bytes())?;
    }
    let page = page.into_string();
    Ok(atomic_file::write_atomic(
        &out.join("report.html"),
        page.as_bytes(),
    )?)
}

/// A whole page that asks for nothing from outside.
fn document(title: &str, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; img-src data:; style-src 'unsafe-inline'";
                meta name="generator" content=(concat!("rgby ", env!("CARGO_PKG_VERSION")));
                title { (title) }
                style { (PreEscaped(chart::STYLE)) (PreEscaped(include_str!("page.css"))) }
            }
            body { main { (body) } }
        }
    }
}

/// A number at the top of a page; the one that leads is larger.
fn tile(name: &str, value: &str, below: &str, lead: bool) -> Markup {
    html! {
        div class=(if lead { "tile lead" } else { "tile" }) {
            span { (name) } b { (value) } span { (below) }
        }
    }
}

/// What a reader should know beside the numbers.
fn remarks(remarks: &[String]) -> Markup {
    html! {
        @if !remarks.is_empty() {
            section {
                h2 { "Before you trust these numbers" }
                ul.remarks { @for remark in remarks { li { (remark) } } }
            }
        }
    }
}

/// A score, as all tables have it.
fn number(value: f64) -> String {
    format!("{value:.3}")
}

/// A score that may not be defined.
fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), number)
}

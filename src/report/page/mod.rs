//! `report.html` of an evaluation and of a training run, and its charts as files.
//!
//! A page is self-contained: its Content-Security-Policy forbids all network access. The template
//! engine escapes all external text (class names, ids, paths).

mod evaluation_charts;
mod run_charts;
mod run_page;
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

pub use run_page::{RunPage, RunStatus};
pub use samples::{SampleCard, SampleValues, extreme_samples};

/// File name, heading and drawing of a chart.
type TitledChart = (&'static str, &'static str, Chart);

/// Decisions by one set of thresholds, and their metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatingPoint {
    /// For example `at 0.5`.
    pub name: String,
    pub decisions: Decisions,
    pub evaluation: Evaluation,
    /// `None` with fewer than two samples or bootstrap draws.
    pub intervals: Option<Intervals>,
}

/// Content of the report of an evaluation.
pub struct EvaluationPage<'a> {
    /// Name of the evaluated model or file.
    pub subject: String,
    /// Class names.
    pub classes: &'a [String],
    pub data: Labelled<'a>,
    /// At least one. The charts and class tables show the first.
    pub points: &'a [OperatingPoint],
    /// Limits of the numbers, one sentence or more each.
    pub remarks: Vec<String>,
    /// Sections of samples: heading, description, samples.
    pub samples: Vec<(&'static str, &'static str, Vec<SampleCard>)>,
    /// Configuration and provenance, as names and values.
    pub about: Vec<(String, String)>,
}

/// Charts of single classes show at most this many classes, the most frequent ones.
const MAX_CLASSES: usize = 60;

impl EvaluationPage<'_> {
    /// Writes `report.html` into the folder `out`, and the charts into `out/plots`, which must exist.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    ///
    /// # Panics
    ///
    /// If `points` is empty.
    pub fn write(&self, out: &Path) -> Result<(), ReportError> {
        write(out, evaluation_charts::files(self), self.html())
    }

    /// Returns the operating point of charts and class tables.
    fn shown(&self) -> &OperatingPoint {
        &self.points[0]
    }

    /// Returns the classes in charts of single classes, in the model's order.
    fn charted(&self) -> Vec<usize> {
        let mut classes: Vec<usize> = (0..self.classes.len()).collect();
        if classes.len() > MAX_CLASSES {
            let support = |class: &usize| self.shown().evaluation.classes[*class].support();
            classes.sort_by_key(|class| std::cmp::Reverse(support(class)));
            classes.truncate(MAX_CLASSES);
            classes.sort_unstable();
        }
        classes
    }

    fn html(&self) -> Markup {
        let body = html! {
            (tables::head(self))
            (tables::points(self))
            (remarks(&self.remarks))
            (evaluation_charts::classes(self))
            (tables::classes(self))
            (evaluation_charts::calibration(self))
            (evaluation_charts::cooccurrences(self))
            (evaluation_charts::curves(self))
            (samples::sections(self))
            (tables::about(self))
        };
        document(&format!("Evaluation of {}", self.subject), &body)
    }
}

/// Writes `report.html` into the folder `out`, and charts by file name into `out/plots`.
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

/// Returns a complete page that loads nothing.
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

/// Draws a number at the top of a page; `lead` makes it larger.
fn tile(name: &str, value: &str, below: &str, lead: bool) -> Markup {
    html! {
        div class=(if lead { "tile lead" } else { "tile" }) {
            span { (name) } b { (value) } span { (below) }
        }
    }
}

/// Returns the section with the limits of the numbers.
fn remarks(remarks: &[String]) -> Markup {
    html! {
        @if !remarks.is_empty() {
            section {
                h2 { "Limits of these numbers" }
                ul.remarks { @for remark in remarks { li { (remark) } } }
            }
        }
    }
}

/// Formats a score for a table.
fn number(value: f64) -> String {
    format!("{value:.3}")
}

/// Formats a score that may be undefined.
fn or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), number)
}

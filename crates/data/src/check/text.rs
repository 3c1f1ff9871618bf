//! The report of a check as text for a terminal.

use std::path::Path;

use super::{CheckReport, Problem, Severity};

/// Maximum number of sizes in the first line.
const SIZES: usize = 4;

impl CheckReport {
    /// Returns the report as text with at most `show` problems per kind.
    ///
    /// `file` is the CSV file that contains all problems, if one was written.
    #[must_use]
    pub fn to_text(&self, show: usize, file: Option<&Path>) -> String {
        let mut text = format!(
            "{} labelled samples, {} with images{}\n\n",
            self.labelled,
            self.samples,
            sizes(self)
        );
        text += &channels(self);
        text += &classes(self);
        for problems in self.problems.chunk_by(|a, b| a.kind == b.kind) {
            text += &kind(problems, show);
        }
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        text += &match (errors, warnings) {
            (0, 0) => "no problems found\n".to_owned(),
            (0, _) => format!("no errors, {}\n", counted(warnings, "warning")),
            _ => format!(
                "{}, {}\n",
                counted(errors, "error"),
                counted(warnings, "warning")
            ),
        };
        if let Some(file) = file {
            text += &format!("all problems are in {}\n", file.display());
        }
        text
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn sizes(report: &CheckReport) -> String {
    let sizes = report.sizes.iter().take(SIZES);
    let mut sizes: Vec<String> = sizes
        .map(|size| format!("{} of {}×{}", size.samples, size.width, size.height))
        .collect();
    let more = report.sizes.len().saturating_sub(SIZES);
    if more > 0 {
        sizes.push(format!("{more} more sizes"));
    }
    match sizes[..] {
        [] => String::new(),
        _ => format!(": {} pixels", sizes.join(", ")),
    }
}

fn channels(report: &CheckReport) -> String {
    let mut text = format!(
        "{:<12} {:>8} {:>8} {:>8} {:>4} {:>4} {:>9} {:>9} {:>9}\n",
        "channel", "images", "mean", "std", "min", "max", "at 255", "at 0", "constant"
    );
    let number = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{v:.5}"));
    let gray = |value: Option<u8>| value.map_or_else(|| "–".into(), |v| v.to_string());
    let percent = |value: Option<f64>| {
        value.map_or_else(
            || "–".into(),
            |fraction| format!("{:.3} %", 100.0 * fraction),
        )
    };
    for channel in &report.channels {
        text += &format!(
            "{:<12} {:>8} {:>8} {:>8} {:>4} {:>4} {:>9} {:>9} {:>9}\n",
            channel.channel,
            channel.images,
            number(channel.mean),
            number(channel.std),
            gray(channel.min),
            gray(channel.max),
            percent(channel.saturated),
            percent(channel.black),
            channel.constant_images
        );
    }
    text + "mean and std refer to values scaled to 0–1\n\n"
}

fn classes(report: &CheckReport) -> String {
    let mut text = "class    samples\n".to_owned();
    for class in &report.classes {
        text += &format!("{:>5} {:>10}  {}\n", class.class, class.samples, class.name);
    }
    text + "\n"
}

/// Lists the problems of one kind; `problems` is not empty.
fn kind(problems: &[Problem], show: usize) -> String {
    let first = &problems[0];
    let mut text = format!(
        "{} {}: {}\n",
        first.severity.name(),
        first.kind.name(),
        problems.len()
    );
    for problem in problems.iter().take(show) {
        text += &format!("  {}\n", line(problem));
    }
    if problems.len() > show {
        text += &format!("  … and {} more\n", problems.len() - show);
    }
    text + &format!("  → {}\n\n", first.kind.hint())
}

fn line(problem: &Problem) -> String {
    let id = match problem.id.as_str() {
        "" => String::new(),
        id => format!("`{id}` "),
    };
    match problem.file.as_str() {
        "" => format!("{id}{}", problem.message),
        file => format!("{id}{}: {file}", problem.message),
    }
}

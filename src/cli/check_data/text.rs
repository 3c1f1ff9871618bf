//! What `rgby check-data` found, for people at a terminal.

use std::path::Path;

use crate::data::{Checked, Problem, Severity};

/// Sizes that are listed.
const SIZES: usize = 4;

pub(super) fn describe(checked: &Checked, show: usize, out: Option<&Path>) -> String {
    let mut text = format!(
        "{} labelled samples, {} with images{}\n\n",
        checked.labelled,
        checked.samples,
        sizes(checked)
    );
    text += &channels(checked);
    text += &classes(checked);
    for problems in checked.problems.chunk_by(|a, b| a.kind == b.kind) {
        text += &kind(problems, show);
    }
    let (errors, warnings) = (
        checked.count(Severity::Error),
        checked.count(Severity::Warning),
    );
    text += &match (errors, warnings) {
        (0, 0) => "nothing is wrong\n".to_owned(),
        (0, _) => format!("no errors, {}\n", counted(warnings, "warning")),
        _ => format!(
            "{}, {}\n",
            counted(errors, "error"),
            counted(warnings, "warning")
        ),
    };
    if let Some(out) = out {
        text += &format!("all of them are in {}\n", out.display());
    }
    text
}

pub(super) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn sizes(checked: &Checked) -> String {
    let sizes = checked.sizes.iter().take(SIZES);
    let mut sizes: Vec<String> = sizes
        .map(|size| format!("{} of {}×{}", size.samples, size.width, size.height))
        .collect();
    let more = checked.sizes.len().saturating_sub(SIZES);
    if more > 0 {
        sizes.push(format!("{more} more sizes"));
    }
    match sizes[..] {
        [] => String::new(),
        _ => format!(": {} pixels", sizes.join(", ")),
    }
}

fn channels(checked: &Checked) -> String {
    let mut text = format!(
        "{:<12} {:>8} {:>8} {:>8} {:>4} {:>4} {:>9} {:>9} {:>9}\n",
        "channel", "images", "mean", "std", "min", "max", "at 255", "at 0", "constant"
    );
    let number = |value: Option<f64>| value.map_or_else(|| "–".into(), |v| format!("{v:.5}"));
    let gray = |value: Option<u8>| value.map_or_else(|| "–".into(), |v| v.to_string());
    let percent = |value: Option<f64>| {
        value.map_or_else(|| "–".into(), |share| format!("{:.3} %", 100.0 * share))
    };
    for channel in &checked.channels {
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
    text + "mean and std are of values scaled to 0–1\n\n"
}

fn classes(checked: &Checked) -> String {
    let mut text = "class    samples\n".to_owned();
    for class in &checked.classes {
        text += &format!("{:>5} {:>10}  {}\n", class.class, class.samples, class.name);
    }
    text + "\n"
}

/// The problems of one kind, at least one.
fn kind(problems: &[Problem], show: usize) -> String {
    let first = &problems[0];
    let mut text = format!(
        "{} {}: {}\n",
        severity(first.severity),
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

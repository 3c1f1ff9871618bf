//! The differences of two models or scores files on the same samples.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::files::create_folder;
use super::predictions::LabelledPredictions;
use super::samples::EvaluatedSamples;
use super::{EvalConfig, EvalError, EvalSubject};
use crate::atomic_file::write_atomic;
use crate::metrics::{
    Bootstrap, Difference, Differences, Evaluation, differences, evaluate_decisions,
};
use crate::score::{Failure, ScoreObserver};

/// One side of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedSubject {
    /// The model, run or scores file.
    pub path: PathBuf,
    /// What ran the model; `None` for a scores file.
    pub engine: Option<String>,
    /// For example `at 0.5`.
    pub threshold_name: String,
    /// Metrics on the common samples.
    pub evaluation: Evaluation,
}

/// Result of a comparison.
pub struct ComparisonReport {
    pub a: ComparedSubject,
    pub b: ComparedSubject,
    /// B − A, with intervals paired by sample.
    pub differences: Differences,
    pub classes: Vec<String>,
    /// The labels file.
    pub labels: PathBuf,
    pub bootstrap: Bootstrap,
    /// Number of labelled samples without probabilities in A or B.
    pub left_out: usize,
    /// Failures of both sides.
    pub failures: Vec<Failure>,
}

/// Compares `config.subject` (A) with `other` (B) on the labelled samples that both have.
///
/// Each side uses its own thresholds, unless the config sets one. Tuning is ignored.
///
/// # Errors
///
/// Like [`run`](super::run); also different classes, or fewer than two samples or bootstrap draws.
pub fn compare(
    config: &EvalConfig,
    other: &EvalSubject,
    observer: &dyn ScoreObserver,
) -> Result<ComparisonReport, EvalError> {
    let a = LabelledPredictions::load(&config.subject, config, observer)?;
    let b = LabelledPredictions::load(other, config, observer)?;
    let paths = || [a.subject.clone(), b.subject.clone()];
    if a.classes != b.classes {
        return Err(EvalError::DifferentClasses {
            subjects: paths(),
            counts: [a.classes.len(), b.classes.len()],
        });
    }
    let probabilities = [&a.table.probabilities, &b.table.probabilities];
    let common = |index: usize| probabilities.iter().all(|rows| rows[index].is_some());
    let samples = [
        EvaluatedSamples::select(&a, config.keep_argmax, common)?,
        EvaluatedSamples::select(&b, config.keep_argmax, common)?,
    ];
    if samples[0].ids.is_empty() {
        return Err(EvalError::NothingInCommon(paths()));
    }
    let decisions = [
        samples[0].decide(&a.thresholds)?,
        samples[1].decide(&b.thresholds)?,
    ];
    let differences = differences(&decisions[0], &decisions[1], &config.bootstrap)
        .ok_or(EvalError::TooFewToCompare)?;
    let evaluate = |side: usize, thresholds: &[f32]| {
        let data = samples[side].data()?;
        Ok::<_, EvalError>(evaluate_decisions(&data, &decisions[side], thresholds))
    };
    let evaluations = [evaluate(0, &a.thresholds)?, evaluate(1, &b.thresholds)?];
    let [x, y] = evaluations;
    Ok(ComparisonReport {
        left_out: a.labels.ids.len() - samples[0].ids.len(),
        labels: a.labels_path.clone(),
        classes: a.classes.clone(),
        bootstrap: config.bootstrap,
        failures: [&a.table.failures[..], &b.table.failures[..]].concat(),
        a: ComparedSubject::new(a, x),
        b: ComparedSubject::new(b, y),
        differences,
    })
}

impl ComparedSubject {
    fn new(predictions: LabelledPredictions, evaluation: Evaluation) -> Self {
        Self {
            path: predictions.subject,
            engine: predictions.engine,
            threshold_name: predictions.threshold_name,
            evaluation,
        }
    }

    fn to_json(&self) -> Value {
        let mut document = json!(self.evaluation);
        document["subject"] = json!(self.path);
        document["engine"] = json!(self.engine);
        document["at"] = json!(self.threshold_name);
        document
    }
}

impl ComparisonReport {
    /// Returns the content of `comparison.json`: metrics of both sides, and the differences with
    /// class names.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut differences = json!(self.differences);
        for (number, name) in self.classes.iter().enumerate() {
            differences["classes"][number]["name"] = json!(name);
        }
        json!({
            "a": self.a.to_json(),
            "b": self.b.to_json(),
            "differences": differences,
            "labels": self.labels,
            "left_out": self.left_out,
            "bootstrap": {"draws": self.bootstrap.draws, "seed": self.bootstrap.seed},
        })
    }

    /// Writes `comparison.json` into the folder `out`, creates the folder if it is missing, and
    /// returns the path of the file.
    ///
    /// # Errors
    ///
    /// The folder or the file cannot be written.
    pub fn write(&self, out: &Path) -> Result<PathBuf, EvalError> {
        create_folder(out)?;
        let path = out.join("comparison.json");
        write_atomic(&path, format!("{:#}\n", self.to_json()).as_bytes())?;
        Ok(path)
    }

    /// Returns a table for the terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let (a, b) = (&self.a, &self.b);
        let names = self.classes.iter().map(|name| name.chars().count());
        let width = names.fold(8, usize::max);
        let mut text = format!(
            "A  {}, {}\nB  {}, {}\n{} samples; B − A with its 95 % interval, paired by sample\n\n",
            a.path.display(),
            a.threshold_name,
            b.path.display(),
            b.threshold_name,
            a.evaluation.samples
        );
        text += &format!("{:width$}       A       B    B − A  95 %\n", "");
        let mut line = |name: &str, score: &dyn Fn(&Evaluation) -> f64, d: &Difference| {
            let interval = d.interval;
            // Writing to a `String` does not fail.
            let _ = writeln!(
                text,
                "{name:width$}  {:6.4}  {:6.4}  {:+7.4}  {:+.4} to {:+.4}{}",
                score(&a.evaluation),
                score(&b.evaluation),
                d.difference,
                interval.low,
                interval.high,
                if interval.contains(0.0) { "" } else { "  *" }
            );
        };
        line("macro-F1", &|e| e.macro_f1, &self.differences.macro_f1);
        line("micro-F1", &|e| e.micro_f1, &self.differences.micro_f1);
        for (number, name) in self.classes.iter().enumerate() {
            let f1 = |e: &Evaluation| e.classes[number].f1;
            line(name, &f1, &self.differences.classes[number]);
        }
        text + "\n* The interval does not contain 0. By chance, this happens for one class in twenty.\n"
    }
}

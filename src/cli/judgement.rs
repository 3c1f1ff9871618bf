//! What `rgby eval` found out, as text, as JSON and as files.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use crate::fsx::write_atomic;
use crate::metrics::{ClassMetrics, Evaluation};
use crate::report::class_bars;
use crate::score::{Failure, output};

/// How good a set of probabilities is.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The model or the scores file.
    pub subject: PathBuf,
    /// The labels file.
    pub labels: PathBuf,
    /// What ran the model, if one did.
    pub engine: Option<String>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// At the given thresholds.
    pub evaluation: Evaluation,
    /// At the thresholds that are best on these very labels, if asked for.
    pub tuned: Option<Evaluation>,
    /// The samples that could not be judged.
    pub failures: Vec<Failure>,
}

impl Judgement {
    /// A table for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let e = &self.evaluation;
        let present = e.classes.iter().filter(|c| support(c) > 0).count();
        let mut lines = vec![
            format!(
                "{} samples, {} classes, {present} of them in the labels\n",
                e.samples,
                e.classes.len()
            ),
            format!(
                "macro-F1        {:.4}   over all classes: std {:.4}, min {:.4}, max {:.4}",
                e.macro_f1, e.f1_std, e.f1_min, e.f1_max
            ),
            format!(
                "  present       {:.4}   over the classes in the labels",
                e.macro_f1_present
            ),
            format!(
                "  chance        {:.4}   of the best predictor that does not look at the images",
                e.chance.best()
            ),
        ];
        lines.extend(self.tuned.as_ref().map(|tuned| {
            format!(
                "  tuned         {:.4}   at thresholds tuned on these very labels: optimistic, \
                 new data will give less",
                tuned.macro_f1
            )
        }));
        lines.push(format!("micro-F1        {:.4}", e.micro_f1));
        lines.extend(
            e.mean_average_precision
                .map(|map| format!("mean AP         {map:.4}")),
        );
        lines.push(format!("loss (BCE)      {:.4}\n", e.loss));
        lines.join("\n") + "\n" + &self.class_table()
    }

    fn class_table(&self) -> String {
        let width = self
            .classes
            .iter()
            .map(|name| name.chars().count())
            .fold(5, usize::max);
        let mut text = format!(
            " no  {:width$}  support  threshold  precision  recall      F1      AP",
            "class"
        );
        text += if self.tuned.is_some() {
            "  tuned threshold  tuned F1\n"
        } else {
            "\n"
        };
        for (number, (name, c)) in self
            .classes
            .iter()
            .zip(&self.evaluation.classes)
            .enumerate()
        {
            let ap = c
                .average_precision
                .map_or_else(|| "–".to_owned(), |ap| format!("{ap:.4}"));
            // Writing to a `String` does not fail.
            let _ = write!(
                text,
                "{number:3}  {name:width$}  {:7}  {:9.3}  {:9.4}  {:6.4}  {:6.4}  {ap:>6}",
                support(c),
                c.threshold,
                c.precision,
                c.recall,
                c.f1
            );
            if let Some(tuned) = self.tuned.as_ref().map(|tuned| &tuned.classes[number]) {
                let _ = write!(text, "  {:15.3}  {:8.4}", tuned.threshold, tuned.f1);
            }
            text.push('\n');
        }
        text
    }

    /// One document for programs: the evaluation, its classes with their names, the same `tuned`
    /// if asked for, and the failures.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut document = self.evaluation_json(&self.evaluation);
        document["subject"] = json!(self.subject);
        document["labels"] = json!(self.labels);
        document["engine"] = json!(self.engine);
        document["tuned"] = json!(self.tuned.as_ref().map(|tuned| self.evaluation_json(tuned)));
        let failure = |f: &Failure| json!({"id": f.id, "file": f.file, "error": f.error});
        document["failures"] = self.failures.iter().map(failure).collect();
        document
    }

    fn evaluation_json(&self, evaluation: &Evaluation) -> Value {
        let mut document = json!(evaluation);
        document["chance"]["best"] = json!(evaluation.chance.best());
        for (number, name) in self.classes.iter().enumerate() {
            let class = &mut document["classes"][number];
            class["name"] = json!(name);
            class["support"] = json!(support(&evaluation.classes[number]));
        }
        document
    }

    /// Writes `metrics.json`, `class_f1.svg` and, if samples failed, `errors.csv` into the folder
    /// `out`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// The folder or a file cannot be written.
    pub fn write(&self, out: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(out)
            .with_context(|| format!("cannot make the folder {}", out.display()))?;
        output::write_errors(&errors_path(out), &self.failures)?;
        let f1: Vec<f64> = self.evaluation.classes.iter().map(|c| c.f1).collect();
        class_bars(
            &out.join("class_f1.svg"),
            "F1 of each class",
            &self.classes,
            &f1,
        )?;
        let document = format!("{:#}\n", self.to_json());
        write_atomic(&out.join("metrics.json"), document.as_bytes())?;
        Ok(())
    }

    /// The samples that could not be judged, or where the folder `out` lists them.
    #[must_use]
    pub fn failure_list(&self, out: Option<&Path>) -> String {
        let failed = self.failures.len();
        let all = failed + self.evaluation.samples;
        let head = format!("{failed} of {all} labelled samples could not be judged");
        if let Some(out) = out {
            return format!("{head}; they are listed in {}", errors_path(out).display());
        }
        self.failures.iter().fold(head + ":", |list, f| {
            let file = if f.file.is_empty() {
                String::new()
            } else {
                format!("{}: ", f.file)
            };
            format!("{list}\n  {}: {file}{}", f.id, f.error)
        })
    }
}

fn errors_path(out: &Path) -> PathBuf {
    out.join("errors.csv")
}

/// Number of samples that carry the class.
fn support(class: &ClassMetrics) -> usize {
    class.true_positives + class.false_negatives
}

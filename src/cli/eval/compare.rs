//! `rgby eval --compare`: how much better one model is than another, on the same samples.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::super::{Outcome, Ui};
use super::EvalArgs;
use super::answers::{Answers, Judged};
use crate::atomic_file::write_atomic;
use crate::metrics::{
    Decisions, Difference, Differences, Evaluation, Labelled, differences, judge, with_highest_kept,
};

/// Two judgements of the same samples.
struct Comparison<'a> {
    answers: [&'a Answers; 2],
    evaluations: [Evaluation; 2],
    /// Of the second from the first.
    differences: Differences,
    /// Labelled samples that one of the two lacks.
    left_out: usize,
}

impl EvalArgs {
    pub(super) fn run_comparison(&self, a: &Path, b: &Path, ui: &Ui) -> anyhow::Result<Outcome> {
        let answers = [self.ask_any(a, ui)?, self.ask_any(b, ui)?];
        let comparison = self.compare_answers(&answers)?;
        let document = comparison.to_json(self);
        if let Some(out) = &self.out {
            std::fs::create_dir_all(out)
                .with_context(|| format!("cannot make the folder {}", out.display()))?;
            let path = out.join("comparison.json");
            write_atomic(&path, format!("{document:#}\n").as_bytes())?;
            ui.note(&format!("written to {}", path.display()));
        }
        if self.json {
            ui.print_json(&document)?;
        } else {
            ui.print(&comparison.to_text())?;
        }
        if comparison.left_out == 0 {
            return Ok(Outcome::Done);
        }
        ui.warn(&format!(
            "{} labelled samples were left out, because one of the two has no probabilities for \
             them",
            comparison.left_out
        ));
        for failure in answers.iter().flat_map(|answers| &answers.table.failures) {
            ui.warn(&format!(
                "  {}: {}: {}",
                failure.id, failure.file, failure.error
            ));
        }
        Ok(Outcome::SomeFailed)
    }

    fn compare_answers<'a>(&self, answers: &'a [Answers; 2]) -> anyhow::Result<Comparison<'a>> {
        let [a, b] = answers;
        let (first, second) = (a.subject.display(), b.subject.display());
        ensure!(
            a.classes == b.classes,
            "{first} and {second} have other classes ({} and {}), or in another order; compare \
             models of the same classes, or name them with --classes",
            a.classes.len(),
            b.classes.len()
        );
        let has = |answers: &Answers, at: usize| answers.table.probabilities[at].is_some();
        let both = |at: usize| has(a, at) && has(b, at);
        let left_out = (0..a.labels.ids.len()).filter(|at| !both(*at)).count();
        let judged = [Judged::of(a, both)?, Judged::of(b, both)?];
        if judged[0].ids.is_empty() {
            bail!("{first} and {second} have no labelled sample in common; give both the same ids");
        }
        let decisions = [self.decide(a, &judged[0])?, self.decide(b, &judged[1])?];
        let differences = differences(&decisions[0], &decisions[1], &self.draws());
        let [x, y] = [&judged[0], &judged[1]].map(Judged::data);
        Ok(Comparison {
            answers: [a, b],
            evaluations: [
                judge(&x?, &decisions[0], &a.thresholds),
                judge(&y?, &decisions[1], &b.thresholds),
            ],
            differences: differences
                .context("--compare needs two samples and two bootstrap draws at least")?,
            left_out,
        })
    }

    fn decide(&self, answers: &Answers, judged: &Judged) -> anyhow::Result<Decisions> {
        if !self.keep_argmax {
            return Ok(Decisions::at(&judged.data()?, &answers.thresholds));
        }
        let kept = with_highest_kept(&judged.probabilities, judged.classes);
        let data = Labelled::new(&kept, &judged.targets, judged.classes);
        let data = data.map_err(anyhow::Error::msg)?;
        Ok(Decisions::at(&data, &answers.thresholds))
    }
}

impl Comparison<'_> {
    fn to_json(&self, args: &EvalArgs) -> Value {
        let side = |number: usize| {
            let (answers, e) = (self.answers[number], &self.evaluations[number]);
            let mut document = json!(e);
            document["subject"] = json!(answers.subject);
            document["engine"] = json!(answers.engine);
            document["at"] = json!(answers.threshold_name);
            document
        };
        let mut differences = json!(self.differences);
        for (number, name) in self.answers[0].classes.iter().enumerate() {
            differences["classes"][number]["name"] = json!(name);
        }
        json!({
            "a": side(0),
            "b": side(1),
            "differences": differences,
            "labels": args.labels,
            "left_out": self.left_out,
            "bootstrap": {"draws": args.bootstrap, "seed": args.seed},
        })
    }

    fn to_text(&self) -> String {
        let [a, b] = self.answers;
        let [x, y] = &self.evaluations;
        let names = a.classes.iter().map(|name| name.chars().count());
        let width = names.fold(8, usize::max);
        let mut text = format!(
            "A  {}, {}\nB  {}, {}\n{} samples; B − A with its 95 % interval, paired by sample\n\n",
            a.subject.display(),
            a.threshold_name,
            b.subject.display(),
            b.threshold_name,
            x.samples
        );
        text += &format!("{:width$}       A       B    B − A  95 %\n", "");
        let mut line = |name: &str, values: [f64; 2], d: &Difference| {
            let interval = d.interval;
            let clear = interval.low > 0.0 || interval.high < 0.0;
            // Writing to a `String` does not fail.
            let _ = writeln!(
                text,
                "{name:width$}  {:6.4}  {:6.4}  {:+7.4}  {:+.4} to {:+.4}{}",
                values[0],
                values[1],
                d.difference,
                interval.low,
                interval.high,
                if clear { "  *" } else { "" }
            );
        };
        line(
            "macro-F1",
            [x.macro_f1, y.macro_f1],
            &self.differences.macro_f1,
        );
        line(
            "micro-F1",
            [x.micro_f1, y.micro_f1],
            &self.differences.micro_f1,
        );
        for (number, name) in a.classes.iter().enumerate() {
            let f1 = [x.classes[number].f1, y.classes[number].f1];
            line(name, f1, &self.differences.classes[number]);
        }
        text + "\n* the interval does not hold 0. Of many classes one in twenty does so by chance.\n"
    }
}

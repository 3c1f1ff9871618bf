//! `rgby eval`: how good a model's probabilities are, by labels.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;

use super::judgement::Judgement;
use super::probabilities::Probabilities;
use super::scorer::{Scorer, Threshold, open_model};
use super::{EngineArgs, LayoutArgs, Outcome, Ui};
use crate::data::{LabelTable, read_labels};
use crate::metrics::{Labelled, evaluate, tune_thresholds};
use crate::score::{Ensemble, Failure, ScoreTable, output};

/// The threshold of every class where no model says its own.
const DEFAULT_THRESHOLD: f32 = 0.5;

/// Judge a model, or any probabilities, by labels: F1, precision, recall, average precision
///
/// Labels are a CSV file with a header, `Id,Target`, classes separated by spaces. Every labelled
/// sample is judged; one that cannot be read is listed, the rest is judged, and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby eval --model model.onnx --images valid --labels valid.csv --tune-thresholds --out report
  rgby eval --scores probabilities.csv --labels valid.csv --json

A scores file is a CSV file with `Id` and one column of probabilities a class, as
`rgby score --scores` writes it.")]
pub struct EvalArgs {
    /// The model, as `rgby export` wrote it
    #[arg(
        long,
        value_name = "FILE",
        requires = "images",
        required_unless_present = "scores"
    )]
    pub model: Option<PathBuf>,
    /// Folder that holds the image files, or a manifest that names them
    #[arg(long, value_name = "DIR|FILE.csv|FILE.parquet", requires = "model")]
    pub images: Option<PathBuf>,
    /// How the images are stored
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// Judge the probabilities in this file instead of a model
    #[arg(long, value_name = "CSV", conflicts_with_all = ["model", "images", "batch", "device", "RunnerArgs"])]
    pub scores: Option<PathBuf>,
    /// The labels
    #[arg(long, value_name = "CSV")]
    pub labels: PathBuf,
    /// A class is predicted from this probability on: a number for all classes, or `tuned` for the
    /// model's own thresholds [default: tuned for a model, 0.5 for a scores file]
    #[arg(long, value_name = "T|tuned")]
    pub threshold: Option<Threshold>,
    /// Judge also at the thresholds that would have been best on these labels, which is optimistic
    #[arg(long)]
    pub tune_thresholds: bool,
    /// Folder for `metrics.json`, `class_f1.svg` and, if samples failed, `errors.csv`
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How to run the model
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Print the result to stdout as one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Labels, and a row of probabilities or a failure for each.
struct Answers {
    /// Names of the classes.
    classes: Vec<String>,
    /// The threshold of each class.
    thresholds: Vec<f32>,
    /// What ran the model, if one did.
    engine: Option<String>,
    labels: LabelTable,
    /// In the order of the labels.
    table: ScoreTable,
}

impl EvalArgs {
    /// Judges, prints the result and writes the files.
    ///
    /// # Errors
    ///
    /// As [`judge`](Self::judge), or the result cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        if let Some(out) = self.out.as_deref() {
            let name = out.display();
            ensure!(
                !out.exists() || out.is_dir(),
                "--out {name} is a file; name a folder for the results"
            );
        }
        let judgement = self.judge(ui)?;
        if let Some(out) = &self.out {
            judgement.write(out)?;
            ui.note(&format!("written to {}", out.display()));
        }
        if self.json {
            ui.print_json(&judgement.to_json())?;
        } else {
            ui.print(&judgement.to_text())?;
        }
        if judgement.failures.is_empty() {
            return Ok(Outcome::Done);
        }
        ui.warn(&judgement.failure_list(self.out.as_deref()));
        Ok(Outcome::SomeFailed)
    }

    /// Judges every labelled sample that has probabilities.
    ///
    /// # Errors
    ///
    /// A file is not what it should be, the engine cannot be had or fails, or not one sample could
    /// be judged.
    pub fn judge(&self, ui: &Ui) -> anyhow::Result<Judgement> {
        let answers = match &self.scores {
            Some(scores) => self.read_scores(scores)?,
            None => self.ask_model(ui)?,
        };
        let classes = answers.classes.len();
        let (mut probabilities, mut targets) = (Vec::new(), Vec::new());
        for (row, target) in answers
            .table
            .probabilities
            .iter()
            .zip(&answers.labels.targets)
        {
            let Some(row) = row else { continue };
            probabilities.extend_from_slice(row);
            let start = targets.len();
            targets.resize(start + classes, 0.0);
            for class in target {
                targets[start + usize::from(*class)] = 1.0;
            }
        }
        if let (true, Some(first)) = (probabilities.is_empty(), answers.table.failures.first()) {
            bail!(
                "not one of the {} labelled samples could be judged; the first is `{}`: {} {}",
                answers.labels.ids.len(),
                first.id,
                first.file,
                first.error
            );
        }
        let data = Labelled::new(&probabilities, &targets, classes).map_err(|e| anyhow!(e))?;
        let tuned = self
            .tune_thresholds
            .then(|| evaluate(&data, &tune_thresholds(&data)));
        Ok(Judgement {
            evaluation: evaluate(&data, &answers.thresholds),
            tuned,
            subject: self
                .model
                .clone()
                .or_else(|| self.scores.clone())
                .unwrap_or_default(),
            labels: self.labels.clone(),
            engine: answers.engine,
            classes: answers.classes,
            failures: answers.table.failures,
        })
    }

    /// The probabilities that the model gives the labelled samples.
    fn ask_model(&self, ui: &Ui) -> anyhow::Result<Answers> {
        let missing = "name a model with --model and its images with --images";
        let model = open_model("--model", self.model.as_deref().context(missing)?)?;
        let alone = Ensemble::new(model, Vec::new())?;
        let images = self.images.as_deref().context(missing)?;
        let spec = alone.spec();
        let labels = read_labels(&self.labels, spec.classes.len())?;
        let samples = self.layout.of(images)?.find(&spec.preprocess.stains())?;
        let samples = output::select(samples, &labels.ids);
        let scored = Scorer::start(&alone, &self.engine, ui)?.score(&samples, ui)?;
        Ok(Answers {
            classes: spec.classes.clone(),
            thresholds: self.threshold.unwrap_or_default().for_model(spec),
            engine: Some(scored.engine),
            labels,
            table: scored.table,
        })
    }

    /// The probabilities that a scores file holds for the labelled samples.
    fn read_scores(&self, scores: &Path) -> anyhow::Result<Answers> {
        let threshold = match self.threshold {
            None => DEFAULT_THRESHOLD,
            Some(Threshold::Fixed(threshold)) => threshold,
            Some(Threshold::Tuned) => bail!(
                "--threshold tuned stands for a model's own thresholds, which --scores does not \
                 have; give a number"
            ),
        };
        let mut read = Probabilities::read(scores)?;
        let labels = read_labels(&self.labels, read.classes.len())?;
        let mut failures = Vec::new();
        let mut row_of = |id: &String| {
            let row = read.rows.remove(id);
            if !matches!(row, Some(Some(_))) {
                let error = if row.is_none() {
                    "has no line for it"
                } else {
                    "its line is empty"
                };
                failures.push(Failure {
                    id: id.clone(),
                    file: scores.display().to_string(),
                    error: error.into(),
                });
            }
            row.flatten()
        };
        let probabilities = labels.ids.iter().map(&mut row_of).collect();
        Ok(Answers {
            thresholds: vec![threshold; read.classes.len()],
            classes: read.classes,
            engine: None,
            table: ScoreTable {
                ids: labels.ids.clone(),
                probabilities,
                failures,
            },
            labels,
        })
    }
}

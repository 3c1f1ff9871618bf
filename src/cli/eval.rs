//! `rgby eval`: how good a model's probabilities are, by labels.

mod answers;
mod compare;
mod judgement;
mod overlays;
mod page;
mod text;
mod tune;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use super::scorer::Threshold;
use super::{EngineArgs, LayoutArgs, Outcome, Ui};
use crate::metrics::Bootstrap;
pub(super) use judgement::Judgement;
use tune::TuneMethod;

/// Judge a model, or any probabilities, by labels: F1 with its intervals, precision, recall,
/// average precision, AUROC, calibration
///
/// Labels are a CSV file with a header, `Id,Target`, classes separated by spaces. Every labelled
/// sample is judged; one that cannot be read is listed, the rest is judged, and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby eval --model model.onnx --images valid --labels valid.csv --tune-thresholds --out report
  rgby eval --model runs/first --images valid --labels valid.csv
  rgby eval --scores probabilities.csv --labels valid.csv --json
  rgby eval --scores scores.npy --ids valid.csv --labels valid.csv --out report --images valid
  rgby eval --scores p.csv --labels valid.csv --tune-thresholds ratio --ratios train.csv
  rgby eval --compare old.csv new.csv --labels valid.csv

A scores file is CSV or Parquet with `Id` and one column of probabilities a class, as
`rgby score --scores` writes it, or a numpy array of [samples, classes].
docs/evaluation.md says what each number means.")]
pub struct EvalArgs {
    /// The model: a file that `rgby export` wrote, or a run or checkpoint, which Burn then runs on
    /// the CPU
    #[arg(
        long,
        value_name = "FILE|RUN|CKPT",
        requires = "images",
        required_unless_present_any = ["scores", "compare"]
    )]
    pub model: Option<PathBuf>,
    /// Folder that holds the image files, or a manifest that names them; with --scores only for
    /// the report
    #[arg(long, value_name = "DIR|FILE.csv|FILE.parquet")]
    pub images: Option<PathBuf>,
    /// How the images are stored
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// Judge the probabilities in this file instead of a model
    #[arg(long, value_name = "CSV|PARQUET|NPY", conflicts_with_all = ["model", "batch", "device", "RunnerArgs"])]
    pub scores: Option<PathBuf>,
    /// Compare two scores files or models on the same samples: how much better is the second?
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["model", "scores", "tune_thresholds"])]
    pub compare: Vec<PathBuf>,
    /// The ids of a numpy array's rows: the first column of this file
    #[arg(long, value_name = "CSV")]
    pub ids: Option<PathBuf>,
    /// The names of the classes in a scores file: a CSV file with a column `Name`
    #[arg(long, value_name = "CSV", conflicts_with = "model")]
    pub classes: Option<PathBuf>,
    /// The labels
    #[arg(long, value_name = "CSV")]
    pub labels: PathBuf,
    /// A class is predicted from this probability on: a number for all classes, or `tuned` for the
    /// model's own thresholds [default: tuned for a model, 0.5 for a scores file]
    #[arg(long, value_name = "T|tuned")]
    pub threshold: Option<Threshold>,
    /// Tune thresholds on these labels and judge them cross-fitted: each sample by thresholds that
    /// it had no part in. `f1` (if nothing is said): the best F1 of each class; `global`: one
    /// threshold for all, for the best macro-F1; `ratio`: each class as often as in --ratios
    #[arg(long, value_name = "METHOD", num_args = 0..=1, default_missing_value = "f1")]
    pub tune_thresholds: Option<TuneMethod>,
    /// The training set's labels: how often each class should be predicted
    #[arg(long, value_name = "CSV", requires = "tune_thresholds")]
    pub ratios: Option<PathBuf>,
    /// Predict a sample's most probable class even below its threshold
    #[arg(long)]
    pub keep_argmax: bool,
    /// Parts of the samples for cross-fitting
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub folds: u16,
    /// Bootstrap draws for the confidence intervals; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub bootstrap: u32,
    /// Decides draws and folds
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Folder for `report.html`, `plots/`, `metrics.json`, with --tune-thresholds
    /// `thresholds.json` (for `rgby export --thresholds`) and, if samples failed, `errors.csv`
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Leave out of the report where the model looked, for which it scores some samples 64 times
    #[arg(long, requires = "out")]
    pub no_overlays: bool,
    /// How to run the model
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Print the result to stdout as one JSON document
    #[arg(long)]
    pub json: bool,
}

impl EvalArgs {
    /// Judges, prints the result and writes the files.
    ///
    /// # Errors
    ///
    /// As [`judge`](Self::judge), or the result cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        self.check()?;
        if let [a, b] = &self.compare[..] {
            return self.run_comparison(a, b, ui);
        }
        let mut judgement = self.judge(ui)?;
        if let Some(out) = &self.out {
            // The numbers are known by now, and worth more than that.
            if let Err(error) = judgement.look(ui) {
                ui.warn(&format!(
                    "the report does not show where the model looked: {error:#}"
                ));
            }
            judgement.write(out)?;
            ui.note(&format!("written to {}", out.join("report.html").display()));
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
        let ratios = self.read_ratios()?;
        let answers = match (&self.scores, &self.model) {
            (Some(scores), _) => self.read_scores(scores, ui)?,
            (None, model) => self.ask_model(model.as_deref(), ui)?,
        };
        Judgement::new(self, answers, ratios.as_ref())
    }

    /// Checks what was asked for before any work.
    fn check(&self) -> anyhow::Result<()> {
        if let Some(out) = self.out.as_deref() {
            let name = out.display();
            ensure!(
                !out.exists() || out.is_dir(),
                "--out {name} is a file; name a folder for the results"
            );
        }
        let by_ratio = self.tune_thresholds == Some(TuneMethod::Ratio);
        ensure!(
            by_ratio == self.ratios.is_some(),
            if by_ratio {
                "--tune-thresholds ratio needs to know how often each class is to be predicted: \
                 name the training set's labels with --ratios CSV"
            } else {
                "--ratios is for --tune-thresholds ratio; leave it out"
            }
        );
        Ok(())
    }

    /// Whether the model is asked again once it has judged.
    fn wants_overlays(&self) -> bool {
        self.out.is_some() && self.compare.is_empty() && !self.no_overlays
    }

    fn draws(&self) -> Bootstrap {
        Bootstrap {
            draws: self.bootstrap as usize,
            seed: self.seed,
        }
    }
}

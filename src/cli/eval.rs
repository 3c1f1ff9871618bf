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

use super::{EngineArgs, LayoutArgs, Outcome, Ui};
use crate::metrics::Bootstrap;
use crate::score::Threshold;
pub(super) use judgement::Judgement;
use tune::TuneMethod;

/// Evaluate a model, or a file of probabilities, against labels
///
/// Computes F1 with confidence intervals, precision, recall, average precision, AUROC and
/// calibration. Labels are a CSV file with the header `Id,Target`; classes are separated by spaces.
/// Every labelled sample is evaluated. Unreadable samples are listed and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby eval --model model.onnx --images valid --labels valid.csv --tune-thresholds --out report
  rgby eval --model runs/first --images valid --labels valid.csv
  rgby eval --scores probabilities.csv --labels valid.csv --json
  rgby eval --scores scores.npy --ids valid.csv --labels valid.csv --out report --images valid
  rgby eval --scores p.csv --labels valid.csv --tune-thresholds ratio --ratios train.csv
  rgby eval --compare old.csv new.csv --labels valid.csv

A scores file is CSV or Parquet with `Id` and one column of probabilities per class, as
`rgby score --scores` writes it, or a NumPy array of [samples, classes].
docs/evaluation.md defines each number.")]
pub struct EvalArgs {
    /// Model to evaluate: exported ONNX file, run or checkpoint
    ///
    /// Runs and checkpoints are evaluated with Burn on the CPU.
    #[arg(
        long,
        value_name = "FILE|RUN|CKPT",
        requires = "images",
        required_unless_present_any = ["scores", "compare"]
    )]
    pub model: Option<PathBuf>,
    /// Image folder, or manifest that lists the image files
    ///
    /// With --scores, images are used for the report only.
    #[arg(long, value_name = "DIR|FILE.csv|FILE.parquet")]
    pub images: Option<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// File of probabilities to evaluate instead of a model
    #[arg(long, value_name = "CSV|PARQUET|NPY", conflicts_with_all = ["model", "batch", "device", "RunnerArgs"])]
    pub scores: Option<PathBuf>,
    /// Two scores files or models to compare on the same samples
    ///
    /// The result is B − A with confidence intervals.
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["model", "scores", "tune_thresholds"])]
    pub compare: Vec<PathBuf>,
    /// CSV whose first column lists the ids of a NumPy array's rows
    #[arg(long, value_name = "CSV")]
    pub ids: Option<PathBuf>,
    /// CSV with the class names of a scores file in a column `Name`
    #[arg(long, value_name = "CSV", conflicts_with = "model")]
    pub classes: Option<PathBuf>,
    /// CSV with labels, `Id,Target`
    #[arg(long, value_name = "CSV")]
    pub labels: PathBuf,
    /// Decision threshold for all classes, or `tuned` for the thresholds of the model
    ///
    /// [default: tuned for a model, 0.5 for a scores file]
    #[arg(long, value_name = "T|tuned")]
    pub threshold: Option<Threshold>,
    /// Tune thresholds on these labels and evaluate them cross-fitted
    ///
    /// Each sample is evaluated with thresholds tuned on the other folds. Without a METHOD, `f1` is
    /// used.
    #[arg(long, value_name = "METHOD", num_args = 0..=1, default_missing_value = "f1")]
    pub tune_thresholds: Option<TuneMethod>,
    /// CSV with training labels; gives the class frequencies for `--tune-thresholds ratio`
    #[arg(long, value_name = "CSV", requires = "tune_thresholds")]
    pub ratios: Option<PathBuf>,
    /// Always predict the most probable class, even below its threshold
    #[arg(long)]
    pub keep_argmax: bool,
    /// Number of folds for cross-fitting
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub folds: u16,
    /// Bootstrap draws for the confidence intervals; 0 disables them
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub bootstrap: u32,
    /// Random seed of bootstrap draws and folds
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Output folder for `report.html`, `plots/` and `metrics.json`
    ///
    /// With --tune-thresholds it also contains `thresholds.json`, for `rgby export --thresholds`. If
    /// samples failed, `errors.csv` lists them.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Omit occlusion maps from the report
    ///
    /// The maps show where the model looked. They take 64 more images for each of up to eight samples.
    #[arg(long, requires = "out")]
    pub no_overlays: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Print the result as one JSON document on stdout
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

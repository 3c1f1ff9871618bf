//! `rgby eval`: parses the options, calls [`eval`], prints the result.

use std::path::PathBuf;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use super::{EngineArgs, LayoutArgs, Outcome, Ui};
use crate::eval::{self, ComparisonReport, EvalConfig, EvalReport, EvalSubject, ThresholdTuning};
use crate::metrics::Bootstrap;
use crate::score::Threshold;

/// Evaluate a model, a run or a file of probabilities against labels
///
/// Computes F1 with confidence intervals, precision, recall, average precision, AUROC and
/// calibration. Labels are a CSV file with the header `Id,Target`; classes are separated by spaces.
/// Every labelled sample is evaluated. Unreadable samples are listed and the exit code is 1.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby eval --model model.onnx --images valid --labels valid.csv --tune-thresholds --out report
  rgby eval --run runs/first --out report
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
        required_unless_present_any = ["run", "scores", "compare"]
    )]
    pub model: Option<PathBuf>,
    /// Run whose best checkpoint to evaluate on its validation split
    ///
    /// Images and labels are those that the run was trained on, unless --images or --labels names
    /// others.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["model", "scores", "compare", "ids", "classes"])]
    pub run: Option<PathBuf>,
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
    #[arg(long, value_name = "CSV", required_unless_present = "run")]
    pub labels: Option<PathBuf>,
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
    /// The maps show which parts of an image changed a probability. They take 64 more images for each
    /// of up to eight samples.
    #[arg(long, requires = "out")]
    pub no_overlays: bool,
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Print the result as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// How thresholds are tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TuneMethod {
    /// One threshold per class, for its best F1.
    F1,
    /// Predict each class as often as it occurs in the labels of --ratios.
    Ratio,
    /// One threshold for all classes, for the best macro-F1.
    Global,
}

impl EvalArgs {
    /// Evaluates, prints the result and writes the files.
    ///
    /// # Errors
    ///
    /// The evaluation failed, or the result cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        if let Some(out) = self.out.as_deref() {
            ensure!(
                !out.exists() || out.is_dir(),
                "--out {} is a file\nhint: name a folder for the results",
                out.display()
            );
        }
        let config = self.config()?;
        if let [_, other] = &self.compare[..] {
            let other = EvalSubject::from_path(other);
            let report = eval::compare(&config, &other, &ui.scoring())?;
            return self.print_comparison(&report, ui);
        }
        let report = eval::run(&config, &ui.scoring())?;
        self.print_report(&report, ui)
    }

    /// Returns the options for the library.
    fn config(&self) -> anyhow::Result<EvalConfig> {
        let subject = match (&self.run, &self.scores, &self.model, &self.compare[..]) {
            (Some(run), ..) => EvalSubject::Run(run.clone()),
            (_, Some(scores), ..) => EvalSubject::Scores(scores.clone()),
            (_, _, Some(model), _) => EvalSubject::Model(model.clone()),
            (.., [first, _]) => EvalSubject::from_path(first),
            // clap requires one of them.
            _ => anyhow::bail!("nothing to evaluate\nhint: pass --model, --run or --scores"),
        };
        let images = self.images.as_ref().map(|images| self.layout.of(images));
        Ok(EvalConfig {
            labels: self.labels.clone(),
            images: images.transpose()?,
            ids: self.ids.clone(),
            classes: self.classes.clone(),
            threshold: self.threshold,
            tuning: self.tuning()?,
            keep_argmax: self.keep_argmax,
            folds: self.folds.into(),
            bootstrap: Bootstrap {
                draws: self.bootstrap as usize,
                seed: self.seed,
            },
            occlusion_maps: self.out.is_some() && self.compare.is_empty() && !self.no_overlays,
            engine: self.engine.options(),
            ..EvalConfig::new(subject)
        })
    }

    fn tuning(&self) -> anyhow::Result<Option<ThresholdTuning>> {
        Ok(match (self.tune_thresholds, &self.ratios) {
            (Some(TuneMethod::Ratio), Some(ratios)) => Some(ThresholdTuning::Ratio(ratios.clone())),
            (Some(TuneMethod::Ratio), None) => anyhow::bail!(
                "--tune-thresholds ratio needs class frequencies\nhint: name the training labels \
                 with --ratios CSV"
            ),
            (_, Some(_)) => {
                anyhow::bail!("--ratios is for --tune-thresholds ratio only\nhint: leave it out")
            }
            (Some(TuneMethod::F1), None) => Some(ThresholdTuning::F1),
            (Some(TuneMethod::Global), None) => Some(ThresholdTuning::Global),
            (None, None) => None,
        })
    }

    fn print_report(&self, report: &EvalReport, ui: &Ui) -> anyhow::Result<Outcome> {
        if let Some(out) = &self.out {
            report.write(out)?;
            ui.note(&format!("report: {}", out.join("report.html").display()));
        }
        if self.json {
            ui.print_json(&report.to_json())?;
        } else {
            ui.print(&report.to_text())?;
        }
        if report.failures.is_empty() {
            return Ok(Outcome::Done);
        }
        ui.warn(&report.failure_list(self.out.as_deref()));
        Ok(Outcome::SomeFailed)
    }

    fn print_comparison(&self, report: &ComparisonReport, ui: &Ui) -> anyhow::Result<Outcome> {
        if let Some(out) = &self.out {
            ui.note(&format!("comparison: {}", report.write(out)?.display()));
        }
        if self.json {
            ui.print_json(&report.to_json())?;
        } else {
            ui.print(&report.to_text())?;
        }
        if report.left_out == 0 {
            return Ok(Outcome::Done);
        }
        ui.warn(&format!(
            "{} labelled samples without probabilities in one of the two were left out",
            report.left_out
        ));
        for failure in &report.failures {
            ui.warn(&format!(
                "  {}: {}: {}",
                failure.id, failure.file, failure.error
            ));
        }
        Ok(Outcome::SomeFailed)
    }
}

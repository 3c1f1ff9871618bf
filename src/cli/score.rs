//! `rgby score`: predictions for a folder of images, or for a stream of samples.

use std::io::{self, IsTerminal};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use clap::Args;
use serde_json::json;

use super::signals::Signals;
use super::{EngineArgs, LayoutArgs, Outcome, StoreArgs, Ui};
use crate::score::{
    ScoreConfig, ScoreModels, ScoreReport, ShardChoice, ShardSelection, Threshold, TtaCombination,
    WorkerConfig, run, run_worker,
};

/// Score a folder of images with an exported model
///
/// Writes the predicted classes of every sample to --out, `Id,Predicted`, and optionally its
/// probabilities to --scores. Unreadable samples get an empty prediction and are listed in
/// FILE.errors.csv; all others are scored, and the exit code is 1.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  rgby score --model model.onnx --images test --ids sample_submission.csv --out submission.csv
  rgby score --model a.onnx --ensemble b.onnx c.onnx --tta 8 --images test --out submission.csv
  rgby score --model s3://lab/model.onnx --images s3://lab/plates/p1/ --out s3://lab/results/p1.csv
  rgby score --model model.onnx --worker <requests.arrows >answers.arrows

Files and folders may be URLs: s3://, gs:// and az://, and https:// for reading (docs/scoring.md).
Images are <Id>_<stain>.png|jpg|jpeg|tif|tiff, one per stain of the model, 8 or 16 bit, of any size,
or <Id>.ome.tif|tif|tiff with all stains. Use --pattern for other file names and --channel for other
channel names. A manifest has a column `Id` and one column per stain with its file. docs/plates.md
has the details.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct ScoreArgs {
    /// Model file of `rgby export`
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// TOML description of a model that rgby did not export
    ///
    /// Required keys: `classes`, `channels` (stains) and `size`. Optional keys: `resize`, `mean`,
    /// `std` and `thresholds`.
    #[arg(long, value_name = "FILE.toml")]
    pub spec: Option<PathBuf>,
    /// Image folder, or manifest that lists the image files
    #[arg(
        long,
        value_name = "DIR|FILE.csv|FILE.parquet",
        required_unless_present = "worker"
    )]
    pub images: Option<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// CSV whose first column lists the samples to score, in order [default: all, sorted]
    ///
    /// The CSV has a header.
    #[arg(long, value_name = "CSV")]
    pub ids: Option<PathBuf>,
    /// Output file for predicted classes: `Id,Predicted`, classes separated by spaces
    #[arg(
        long,
        value_name = "FILE.csv|FILE.parquet",
        required_unless_present = "worker"
    )]
    pub out: Option<PathBuf>,
    /// Output file for probabilities: `Id` and one column per class
    #[arg(long, value_name = "FILE.csv|FILE.parquet")]
    pub scores: Option<PathBuf>,
    /// Output file for embeddings: `Id` and columns f0, f1, …
    ///
    /// The model must have been exported with `rgby export --with-embeddings`.
    #[arg(long, value_name = "FILE.csv|FILE.parquet")]
    pub embeddings: Option<PathBuf>,
    /// Decision threshold for all classes, or `tuned` for the thresholds of the model
    ///
    /// For an ensemble, `tuned` is the mean of the models' thresholds.
    #[arg(long, value_name = "T|tuned", default_value = "tuned")]
    pub threshold: Threshold,
    /// Always predict the most probable class, even below its threshold
    #[arg(long)]
    pub keep_argmax: bool,
    #[command(flatten)]
    pub ensemble: EnsembleArgs,
    #[command(flatten)]
    pub shard: ShardArgs,
    /// Resume an interrupted run
    ///
    /// Results are kept in FILE.parts until they are complete. A finished run is left unchanged.
    #[arg(long)]
    pub resume: bool,
    /// Samples per part of an unfinished result
    ///
    /// A killed run loses at most one part, or about ten seconds of work, whichever is less.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..))]
    pub part_size: u16,
    /// Stop after more than this many unreadable samples [default: never]
    #[arg(long, value_name = "N")]
    pub max_errors: Option<usize>,
    /// Exit with 0 instead of 1 if samples failed; they are still listed
    ///
    /// For schedulers that would otherwise repeat the work.
    #[arg(long)]
    pub failed_ok: bool,
    #[command(flatten)]
    pub worker: WorkerArgs,
    #[command(flatten)]
    pub engine: EngineArgs,
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print a summary as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

/// Ensemble and test-time augmentation options.
#[derive(Debug, Clone, Args)]
pub struct EnsembleArgs {
    /// Further models, whose probabilities are averaged with those of --model
    ///
    /// All models must have the same classes in the same order.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub ensemble: Vec<PathBuf>,
    /// Test-time augmentation: 1 for none, 8 for all rotations and flips
    #[arg(long, value_name = "1|8", default_value_t = 1, value_parser = tta_count)]
    pub tta: u8,
    /// How to combine the probabilities of the augmented images [default: mean]
    ///
    /// They are combined per model, before the models of an ensemble are averaged.
    #[arg(long, value_name = "HOW", value_enum)]
    pub tta_combine: Option<TtaCombination>,
}

fn tta_count(text: &str) -> Result<u8, String> {
    match text {
        "1" => Ok(1),
        "8" => Ok(8),
        _ => Err("use 1 for no augmentation, or 8 for all rotations and flips".into()),
    }
}

/// Shard options.
#[derive(Debug, Clone, Args)]
pub struct ShardArgs {
    /// Score one of n shards: 0/n to n-1/n, or 1/n to n/n
    ///
    /// A hash of the id decides the shard of a sample. `auto` takes i from `JOB_COMPLETION_INDEX`
    /// (Kubernetes) or `SLURM_ARRAY_TASK_ID`, and n from --shards or `SLURM_ARRAY_TASK_COUNT`.
    #[arg(long, value_name = "i/n|auto")]
    pub shard: Option<ShardChoice>,
    /// Number of shards; the index comes from the scheduler (`--shard auto`)
    #[arg(long, value_name = "N")]
    pub shards: Option<NonZeroU32>,
}

/// Worker options.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Read samples from stdin and write probabilities to stdout, as Arrow IPC streams
    ///
    /// Each record batch gets one response, until stdin ends; see docs/worker.md.
    #[arg(long, conflicts_with_all = [
        "images", "pattern", "channel", "ids", "out", "scores", "embeddings", "shard", "shards",
        "resume", "part_size", "max_errors", "json",
    ])]
    pub worker: bool,
    /// Maximum size of a record batch in MiB; two are in memory at once
    // A column of responses holds less than 2 GiB.
    #[arg(long, value_name = "MIB", default_value_t = 512, conflicts_with_all = ["images", "out"], value_parser = clap::value_parser!(u16).range(1..=2047))]
    pub worker_batch_mib: u16,
}

impl ScoreArgs {
    /// Scores the samples and writes the files, or responds on stdout until stdin ends.
    ///
    /// # Errors
    ///
    /// As [`run`] and [`run_worker`].
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        ensure!(
            self.ensemble.tta > 1 || self.ensemble.tta_combine.is_none(),
            "--tta-combine needs test-time augmentation\nhint: add --tta 8, or leave it out"
        );
        let signals = Signals::default();
        match (&self.images, &self.out) {
            (Some(images), Some(out)) => {
                let config = self.config(images, out.clone(), &signals)?;
                let report = run(&config, &ui.scoring().with_signals(&signals))?;
                if !report.finished {
                    return Ok(signals.outcome());
                }
                self.print(&report, ui)
            }
            _ => self.run_worker(&signals, ui),
        }
    }

    fn config(
        &self,
        images: &Path,
        out: PathBuf,
        signals: &Signals,
    ) -> anyhow::Result<ScoreConfig> {
        Ok(ScoreConfig {
            models: self.models(),
            images: self.layout.of(images)?,
            ids: self.ids.clone(),
            out,
            scores: self.scores.clone(),
            embeddings: self.embeddings.clone(),
            shard: ShardSelection {
                shard: self.shard.shard,
                shards: self.shard.shards,
            },
            resume: self.resume,
            part_size: self.part_size.into(),
            max_errors: self.max_errors,
            engine: self.engine.options(),
            store: self.store.options(),
            stop: signals.stop().clone(),
        })
    }

    fn models(&self) -> ScoreModels {
        let combine = self.ensemble.tta_combine.unwrap_or_default();
        ScoreModels {
            model: self.model.clone(),
            spec: self.spec.clone(),
            ensemble: self.ensemble.ensemble.clone(),
            tta: (self.ensemble.tta > 1).then_some(combine),
            threshold: self.threshold,
            keep_argmax: self.keep_argmax,
        }
    }

    fn run_worker(&self, signals: &Signals, ui: &Ui) -> anyhow::Result<Outcome> {
        ensure!(
            !io::stdin().is_terminal() && !io::stdout().is_terminal(),
            "--worker reads and writes Arrow IPC streams, but stdin or stdout is a terminal\n\
             hint: start it from a program, as docs/worker.md shows"
        );
        let config = WorkerConfig {
            models: self.models(),
            max_batch_bytes: u64::from(self.worker.worker_batch_mib) << 20,
            engine: self.engine.options(),
            store: self.store.options(),
            stop: signals.stop().clone(),
        };
        let observer = ui.scoring().with_signals(signals);
        let report = run_worker(&config, io::stdin(), io::stdout().lock(), &observer)?;
        let (samples, failed, seconds) = (report.samples, report.failed, report.seconds);
        ui.note(&format!(
            "{samples} samples, {failed} failed, {seconds:.1} s"
        ));
        if report.stopped {
            return Ok(signals.outcome());
        }
        if failed > 0 {
            ui.warn(&format!(
                "{failed} of {samples} samples failed; the column `error` says why"
            ));
        }
        Ok(Outcome::with_failures(failed, self.failed_ok))
    }

    /// Prints which files were written and how many samples failed.
    fn print(&self, report: &ScoreReport, ui: &Ui) -> anyhow::Result<Outcome> {
        let show = |path: &PathBuf| path.display().to_string();
        let files = &report.files;
        for (what, path) in [
            ("predictions", Some(&files.out)),
            ("probabilities", files.scores.as_ref()),
            ("embeddings", files.embeddings.as_ref()),
        ] {
            if let Some(path) = path {
                ui.note(&format!("{what}: {}", path.display()));
            }
        }
        let (samples, failed) = (report.samples, report.failed);
        let errors = show(&files.errors);
        let models = self.models();
        if self.json {
            ui.print_json(&json!({
                "model": show(&files.model),
                "ensemble": files.ensemble.iter().map(show).collect::<Vec<_>>(),
                "tta": self.ensemble.tta,
                "tta_combine": models.tta,
                "engine": report.engine,
                "engine_config": report.engine_config,
                "split": report.threads,
                "shard": report.shard,
                "samples": samples,
                "resumed_at": report.resumed_at,
                "failed": failed,
                "seconds": report.seconds,
                "samples_per_s": report.scored as f64 / report.seconds.max(1e-9),
                "out": show(&files.out),
                "scores": files.scores.as_ref().map(show),
                "embeddings": files.embeddings.as_ref().map(show),
                "errors": (failed > 0).then_some(&errors),
            }))?;
        }
        if failed > 0 {
            ui.warn(&format!(
                "{failed} of {samples} samples failed; they are listed in {errors}"
            ));
        }
        Ok(Outcome::with_failures(failed, self.failed_ok))
    }
}

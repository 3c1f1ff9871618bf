//! `rgby score`: predictions for a folder of images.

mod bulk;
mod description;
mod outputs;
mod shard;
mod vote;
mod worker;

use std::path::{Path, PathBuf};

use clap::Args;

use self::bulk::Bulk;
use self::description::open_described;
pub(super) use self::outputs::check_output;
use self::shard::ShardArgs;
use self::vote::VoteArgs;
use self::worker::WorkerArgs;
use super::scorer::{Scorer, Threshold, open_model};
use super::{EngineArgs, LayoutArgs, Outcome, Stage, StoreArgs, Ui};
use crate::score::{Decision, Ensemble};

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
    pub vote: VoteArgs,
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

impl ScoreArgs {
    /// Scores the samples and writes the files, or answers on stdout until stdin ends.
    ///
    /// # Errors
    ///
    /// A file that is read or written is not what it should be, or the engine cannot be had or
    /// fails; what was scored is kept beside --out.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let mut stage = Stage::new(self.store.options());
        let done = match (&self.images, &self.out) {
            (Some(images), Some(out)) => self.bulk(images, out, &mut stage, ui),
            _ => self.work(&mut stage, ui),
        };
        done.map_err(|error| stage.named(error))
    }

    fn bulk(
        &self,
        images: &Path,
        out: &Path,
        stage: &mut Stage,
        ui: &Ui,
    ) -> anyhow::Result<Outcome> {
        let out = stage.output("--out", out)?;
        let bulk = Bulk {
            args: self.staged(stage)?,
            images: images.to_owned(),
            out,
        };
        bulk.run(stage, ui)
    }

    /// The same with local files in the place of those in stores.
    fn staged(&self, stage: &mut Stage) -> anyhow::Result<Self> {
        let mut here = self.clone();
        for (flag, path) in [
            ("--scores", &mut here.scores),
            ("--embeddings", &mut here.embeddings),
        ] {
            if let Some(path) = path {
                *path = stage.output(flag, path)?;
            }
        }
        here.model = stage.input("--model", &self.model)?;
        for path in &mut here.vote.ensemble {
            *path = stage.input("--ensemble", path)?;
        }
        for (flag, path) in [("--ids", &mut here.ids), ("--spec", &mut here.spec)] {
            if let Some(path) = path {
                *path = stage.input(flag, path)?;
            }
        }
        Ok(here)
    }

    /// The models, opened.
    fn ensemble(&self) -> anyhow::Result<Ensemble> {
        let model = match &self.spec {
            Some(spec) => open_described(&self.model, spec)?,
            None => open_model("--model", &self.model)?,
        };
        let ensemble = self.vote.ensemble(model)?;
        Ok(match &self.embeddings {
            Some(_) => ensemble.with_embeddings()?,
            None => ensemble,
        })
    }

    /// Starts the engine on the models, and notes who is asked.
    fn start(&self, ensemble: &Ensemble, ui: &Ui) -> anyhow::Result<Scorer> {
        let scorer = Scorer::start(ensemble, &self.engine, ui)?;
        if let Some(note) = self.vote.note(self.threshold) {
            ui.note(&note);
        }
        Ok(scorer)
    }

    /// What makes a prediction of a probability.
    fn decision(&self, ensemble: &Ensemble) -> Decision {
        Decision {
            thresholds: self.threshold.for_model(ensemble.spec()),
            keep_argmax: self.keep_argmax,
        }
    }
}

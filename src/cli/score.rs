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
/// Writes the predicted classes of every sample to a CSV file, `Id,Predicted`, and its
/// probabilities to another one if asked for. A sample that cannot be read is listed in
/// FILE.errors.csv and gets an empty prediction; the rest is scored, and the exit code is 1.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:
  rgby score --model model.onnx --images test --ids sample_submission.csv --out submission.csv
  rgby score --model a.onnx --ensemble b.onnx c.onnx --tta 8 --images test --out submission.csv
  rgby score --model s3://lab/model.onnx --images s3://lab/plates/p1/ --out s3://lab/results/p1.csv
  rgby score --model model.onnx --worker <requests.arrows >answers.arrows

Files and folders may be URLs: s3://, gs://, az://, and to read from https:// (docs/scoring.md).
Images are <Id>_<stain>.png|jpg|jpeg|tif|tiff, with the model's stains, 8 or 16 bit, of any size, or
<Id>.ome.tif|tif|tiff with all stains; --pattern reads other names, --channel says what stains are
called. A manifest has a column `Id` and one a stain with its file. More in docs/plates.md.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct ScoreArgs {
    /// The model, as `rgby export` wrote it
    #[arg(long, value_name = "FILE")]
    pub model: PathBuf,
    /// What a model of another program's is, which carries no word of it: a TOML file with
    /// `classes`, `channels` (stains), `size`, and if they differ from rgby's `resize`, `mean`,
    /// `std`, `thresholds`
    #[arg(long, value_name = "FILE.toml")]
    pub spec: Option<PathBuf>,
    /// Folder that holds the image files, or a manifest that names them
    #[arg(
        long,
        value_name = "DIR|FILE.csv|FILE.parquet",
        required_unless_present = "worker"
    )]
    pub images: Option<PathBuf>,
    /// How the images are stored
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// Score these samples only, in this order: the ids in the first column of a CSV file with a
    /// header [default: all, by id]
    #[arg(long, value_name = "CSV")]
    pub ids: Option<PathBuf>,
    /// Where the predicted classes go: `Id,Predicted`, classes separated by spaces
    #[arg(
        long,
        value_name = "FILE.csv|FILE.parquet",
        required_unless_present = "worker"
    )]
    pub out: Option<PathBuf>,
    /// Where the probabilities go: `Id` and a column for each class
    #[arg(long, value_name = "FILE.csv|FILE.parquet")]
    pub scores: Option<PathBuf>,
    /// Where the pooled features that the model's head reads go: `Id` and columns f0, f1, …; the
    /// model must have been exported with `rgby export --with-embeddings`
    #[arg(long, value_name = "FILE.csv|FILE.parquet")]
    pub embeddings: Option<PathBuf>,
    /// A class is predicted from this probability on: a number for all classes, or `tuned` for the
    /// model's own thresholds, of an ensemble the mean of its models'
    #[arg(long, value_name = "T|tuned", default_value = "tuned")]
    pub threshold: Threshold,
    /// Predict a sample's most probable class even below its threshold
    #[arg(long)]
    pub keep_argmax: bool,
    /// Who is asked, and how often
    #[command(flatten)]
    pub vote: VoteArgs,
    /// Which share of the samples is scored
    #[command(flatten)]
    pub shard: ShardArgs,
    /// Go on with a run that was stopped or killed: results are kept in FILE.parts until they are
    /// complete. Of one that was finished nothing is done again
    #[arg(long)]
    pub resume: bool,
    /// Samples that are kept at a time; a killed run loses no more work than that, nor more than
    /// about ten seconds' worth
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u16).range(1..))]
    pub part_size: u16,
    /// Stop once more samples than this cannot be read [default: never]
    #[arg(long, value_name = "N")]
    pub max_errors: Option<usize>,
    /// End with exit code 0, not 1, though samples failed; they are listed all the same. For
    /// schedulers, which would do the work again
    #[arg(long)]
    pub failed_ok: bool,
    /// Whether samples come by stdin instead
    #[command(flatten)]
    pub worker: WorkerArgs,
    /// How to run the model
    #[command(flatten)]
    pub engine: EngineArgs,
    /// How to speak to object stores
    #[command(flatten)]
    pub store: StoreArgs,
    /// Print what was done to stdout as one JSON document
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

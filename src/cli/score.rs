//! `rgby score`: predictions for a folder of images.

mod description;
mod outputs;
mod shard;
mod vote;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;

use self::description::open_described;
use self::outputs::Outputs;
pub(super) use self::outputs::check_output;
use self::shard::Share;
pub use self::shard::{ShardArgs, ShardChoice};
pub use self::vote::VoteArgs;
use super::scorer::{Scorer, Threshold, open_model};
use super::signals::Signals;
use super::stage::located;
use super::{EngineArgs, LayoutArgs, Outcome, Stage, Started, StoreArgs, StoreFiles, Ui};
use crate::data::Images;
use crate::imaging::{FileSource, LocalFiles, Sample};
use crate::score::{
    Decision, EngineConfig, Ensemble, Form, Parts, RunKey, Source, hash_of_ids, is_unfinished,
    output,
};
use crate::store::Location;

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
    #[arg(long, value_name = "DIR|FILE.csv|FILE.parquet")]
    pub images: PathBuf,
    /// How the images are stored
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// Score these samples only, in this order: the ids in the first column of a CSV file with a
    /// header [default: all, by id]
    #[arg(long, value_name = "CSV")]
    pub ids: Option<PathBuf>,
    /// Where the predicted classes go: `Id,Predicted`, classes separated by spaces
    #[arg(long, value_name = "FILE.csv|FILE.parquet")]
    pub out: PathBuf,
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

/// What a finished run has to say.
struct Report<'a> {
    started: &'a Started,
    share: &'a Share,
    samples: usize,
    /// Those of them that this process scored.
    scored: usize,
    failed: usize,
    seconds: f64,
    outputs: &'a Outputs<'a>,
    stage: &'a Stage,
}

impl ScoreArgs {
    /// Scores the samples and writes the files.
    ///
    /// # Errors
    ///
    /// A file that is read or written is not what it should be, or the engine cannot be had or
    /// fails; what was scored is kept beside --out.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let mut stage = Stage::new(self.store.options());
        let outcome = self.staged(&mut stage);
        let outcome = outcome.and_then(|here| here.run_here(&stage, ui));
        outcome.map_err(|error| stage.named(error))
    }

    /// The same with local files in the place of those in stores.
    fn staged(&self, stage: &mut Stage) -> anyhow::Result<Self> {
        let mut here = self.clone();
        here.out = stage.output("--out", &self.out)?;
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

    fn run_here(&self, stage: &Stage, ui: &Ui) -> anyhow::Result<Outcome> {
        let outputs = self.outputs();
        outputs.check()?;
        let share = self.shard.resolve()?;
        let ensemble = self.ensemble()?;
        let images = self.layout.of(&self.images)?;
        let listed = self.samples(&images, &ensemble)?;
        let mut scorer = Scorer::start(&ensemble, &self.engine, ui)?;
        if let Some(note) = self.vote.note(self.threshold) {
            ui.note(&note);
        }
        let mut whole = self.key(&ensemble, scorer.started(), &listed);
        whole.options += &images.layout.to_string();
        let samples = share.of(listed, ui);
        let key = RunKey {
            shard: share.shard,
            count: samples.len(),
            ..whole
        };
        let copies = stage.parts(&self.out, self.resume)?;
        if self.resume && !is_unfinished(&self.out) {
            outputs.fetch(stage)?;
        }
        if let Some(failed) = self.finished(&outputs, &key, &ensemble)? {
            ui.note("these samples are scored already");
            let report = Report {
                started: scorer.started(),
                share: &share,
                samples: samples.len(),
                scored: 0,
                failed,
                seconds: 0.0,
                outputs: &outputs,
                stage,
            };
            return self.report(&report, ui);
        }
        let form = Form {
            classes: &ensemble.spec().classes,
            embeddings: ensemble.embeddings(),
            part_size: self.part_size.into(),
        };
        let mut parts = Parts::open(&self.out, key, form, self.resume, copies)?;
        if parts.done() > 0 {
            ui.note(&format!(
                "going on after {} of {} samples",
                parts.done(),
                samples.len()
            ));
        }
        let signals = Signals::listen()?;
        let most_failures = self.max_errors.unwrap_or(usize::MAX);
        let files = self.files(signals.stop())?;
        let from = Source {
            samples: &samples,
            files: &*files,
            stop: signals.stop(),
        };
        let before = parts.done();
        let seconds = scorer.score_parts(from, &mut parts, most_failures, ui);
        let seconds = seconds.map_err(|error| self.kept(error, &parts, samples.len()))?;
        if parts.done() < samples.len() {
            ui.note(&format!(
                "stopped after {} of {} samples; go on with --resume",
                parts.done(),
                samples.len()
            ));
            return Ok(signals.outcome());
        }
        outputs.write(&parts, &ensemble, &self.decision(&ensemble))?;
        stage.publish(&self.out, &outputs.errors)?;
        let failed = parts.failed();
        parts.remove()?;
        let report = Report {
            started: scorer.started(),
            share: &share,
            samples: samples.len(),
            scored: samples.len() - before,
            failed,
            seconds,
            outputs: &outputs,
            stage,
        };
        self.report(&report, ui)
    }

    fn outputs(&self) -> Outputs<'_> {
        Outputs {
            predictions: &self.out,
            scores: self.scores.as_deref(),
            embeddings: self.embeddings.as_deref(),
            errors: output::errors_path(&self.out),
        }
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

    /// What makes a prediction of a probability.
    fn decision(&self, ensemble: &Ensemble) -> Decision {
        Decision {
            thresholds: self.threshold.for_model(ensemble.spec()),
            keep_argmax: self.keep_argmax,
        }
    }

    /// How many samples failed, if an earlier run has done all there is to do.
    fn finished(
        &self,
        outputs: &Outputs,
        key: &RunKey,
        ensemble: &Ensemble,
    ) -> anyhow::Result<Option<usize>> {
        if !self.resume || is_unfinished(&self.out) {
            return Ok(None);
        }
        let Some(failures) = outputs.finished(key, &self.decision(ensemble))? else {
            return Ok(None);
        };
        outputs.write_errors(&failures)?;
        Ok(Some(failures.len()))
    }

    /// What the results of all samples depend on.
    fn key(&self, ensemble: &Ensemble, started: &Started, samples: &[Sample]) -> RunKey {
        let mut options = format!("batch {}", self.engine.batch);
        if self.vote.tta > 1 {
            options += &format!(", tta {} {}", self.vote.tta, self.vote.combine());
        }
        if self.embeddings.is_some() {
            options += ", embeddings";
        }
        if self.spec.is_some() {
            options += &format!(", {}", json!(ensemble.spec()));
        }
        if *started.config != EngineConfig::default() {
            options += &format!(", {}", json!(*started.config));
        }
        RunKey {
            models: ensemble
                .models()
                .iter()
                .map(|model| model.sha256().to_owned())
                .collect(),
            engine: started.identity.clone(),
            options,
            samples: hash_of_ids(samples.iter().map(|sample| sample.id.as_str())),
            listed: samples.len(),
            shard: None,
            count: samples.len(),
        }
    }

    /// Says with an error what of the work is kept.
    fn kept(&self, error: anyhow::Error, parts: &Parts, samples: usize) -> anyhow::Error {
        match parts.done() {
            0 => error,
            done => error.context(format!(
                "{done} of {samples} samples are kept beside {}; mend this, then go on with \
                 --resume",
                self.out.display()
            )),
        }
    }

    /// The samples to score, in the order of the output.
    fn samples(&self, images: &Images, ensemble: &Ensemble) -> anyhow::Result<Vec<Sample>> {
        let ids = self.ids.as_deref().map(output::read_ids).transpose()?;
        let stains = ensemble.stains();
        let samples = match located("--images", &self.images)? {
            Location::Remote(url) => {
                ensure!(
                    images.is_plain(),
                    "--images {url}: in a store, samples are <Id>_<stain> files or <Id>.ome.tif with \
                     all stains in one folder; leave out --pattern and --channel, or copy the files \
                     to this machine"
                );
                StoreFiles::find(&url, &self.store.options(), &stains).context("--images")?
            }
            Location::Local(path) => Images {
                path,
                layout: images.layout.clone(),
            }
            .find(&stains)?,
        };
        Ok(match ids {
            Some(ids) => output::select(samples, &ids),
            None => samples,
        })
    }

    /// Where the samples' files come from, until `stop` is set.
    fn files(&self, stop: &Arc<AtomicBool>) -> anyhow::Result<Box<dyn FileSource>> {
        Ok(match located("--images", &self.images)? {
            Location::Local(_) => Box::new(LocalFiles),
            Location::Remote(url) => {
                let options = self.store.options();
                Box::new(StoreFiles::open(&url, &options, stop.clone())?)
            }
        })
    }

    /// Says what was written and what failed.
    fn report(&self, report: &Report, ui: &Ui) -> anyhow::Result<Outcome> {
        let &Report {
            started,
            share,
            samples,
            scored,
            failed,
            seconds,
            outputs,
            stage,
        } = report;
        let shown = |path: &PathBuf| stage.shown(path);
        outputs.note(stage, ui);
        if self.json {
            ui.print_json(&json!({
                "model": shown(&self.model),
                "ensemble": self.vote.ensemble.iter().map(shown).collect::<Vec<_>>(),
                "tta": self.vote.tta,
                "tta_combine": (self.vote.tta > 1).then(|| self.vote.combine().to_string()),
                "engine": started.name,
                "engine_config": *started.config,
                "split": started.split,
                "shard": share.shard,
                "samples": samples,
                "resumed_at": samples - scored,
                "failed": failed,
                "seconds": seconds,
                "samples_per_s": scored as f64 / seconds.max(1e-9),
                "out": shown(&self.out),
                "scores": self.scores.as_ref().map(shown),
                "embeddings": self.embeddings.as_ref().map(shown),
                "errors": (failed > 0).then(|| shown(&outputs.errors)),
            }))?;
        }
        if failed == 0 {
            return Ok(Outcome::Done);
        }
        let errors = shown(&outputs.errors);
        ui.warn(&format!(
            "{failed} of {samples} samples failed; they are listed in {errors}"
        ));
        Ok(if self.failed_ok {
            Outcome::Done
        } else {
            Outcome::SomeFailed
        })
    }
}

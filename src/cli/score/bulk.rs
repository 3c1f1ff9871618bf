//! Scoring of a folder of images, with the results in files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, ensure};
use serde_json::json;

use super::super::scorer::Scorer;
use super::super::signals::Signals;
use super::super::stage::located;
use super::super::{Outcome, Stage, Started, StoreFiles, Ui};
use super::ScoreArgs;
use super::outputs::Outputs;
use crate::data::Images;
use crate::imaging::{FileSource, LocalFiles, Sample};
use crate::score::{
    Decision, EngineConfig, Ensemble, PartFormat, RemoteParts, ResultParts, RunKey, ScoreSource,
    hash_of_ids, is_unfinished, output, remove_leftovers,
};
use crate::store::Location;

/// What is to be done, with local files in the place of those in stores.
pub(super) struct Bulk {
    pub(super) args: ScoreArgs,
    /// Folder or manifest, here or in a store.
    pub(super) images: PathBuf,
    /// Where the predictions go.
    pub(super) out: PathBuf,
}

/// A run that can begin: all that was asked for is checked, opened and listed.
struct Job<'a> {
    outputs: Outputs<'a>,
    ensemble: Ensemble,
    decision: Decision,
    scorer: Scorer,
    /// Those of this run's share.
    samples: Vec<Sample>,
    key: RunKey,
}

/// How a run went.
struct Tally {
    /// Samples that this process scored.
    scored: usize,
    /// Samples that failed, here or in an earlier process.
    failed: usize,
    seconds: f64,
}

impl Bulk {
    /// Scores the samples and writes the files.
    ///
    /// # Errors
    ///
    /// A file that is read or written is not what it should be, or the engine cannot be had or
    /// fails; what was scored is kept beside --out.
    pub(super) fn run(&self, stage: &Stage, ui: &Ui) -> anyhow::Result<Outcome> {
        let mut job = self.prepare(ui)?;
        let copies = stage.parts(&self.out, self.args.resume)?;
        if let Some(failed) = self.finished(&job, stage)? {
            ui.note("these samples are scored already");
            let tally = Tally {
                scored: 0,
                failed,
                seconds: 0.0,
            };
            return self.report(&job, &tally, stage, ui);
        }
        let mut parts = self.open_parts(&job, copies, ui)?;
        let (all, before) = (job.samples.len(), parts.done());
        let signals = Signals::listen()?;
        let seconds = self.score(&mut job, &mut parts, &signals, ui)?;
        if parts.done() < all {
            ui.note(&format!(
                "stopped after {} of {all} samples; go on with --resume",
                parts.done()
            ));
            return Ok(signals.outcome());
        }
        let without = job.outputs.write(&parts, &job.ensemble, &job.decision)?;
        if 2 * without > all {
            ui.note(&format!(
                "{without} of {all} samples reach no class's threshold and have an empty \
                 prediction; --threshold lowers it, --keep-argmax keeps the most probable class, \
                 `rgby eval --tune-thresholds` finds better ones"
            ));
        }
        stage.publish(&self.out, &job.outputs.errors)?;
        let tally = Tally {
            scored: all - before,
            failed: parts.failed(),
            seconds,
        };
        parts.remove()?;
        self.report(&job, &tally, stage, ui)
    }

    /// Checks and opens everything, the cheap things first.
    fn prepare(&self, ui: &Ui) -> anyhow::Result<Job<'_>> {
        let outputs = self.outputs();
        outputs.check()?;
        let share = self.args.shard.resolve()?;
        let ensemble = self.args.ensemble()?;
        let images = self.args.layout.of(&self.images)?;
        let listed = self.samples(&images, &ensemble)?;
        let scorer = self.args.start(&ensemble, ui)?;
        let whole = self.key(&ensemble, scorer.started(), &images, &listed);
        let samples = share.of(listed, ui);
        Ok(Job {
            outputs,
            decision: self.args.decision(&ensemble),
            ensemble,
            scorer,
            key: RunKey {
                shard: share.shard,
                count: samples.len(),
                ..whole
            },
            samples,
        })
    }

    fn outputs(&self) -> Outputs<'_> {
        Outputs {
            predictions: &self.out,
            scores: self.args.scores.as_deref(),
            embeddings: self.args.embeddings.as_deref(),
            errors: output::errors_path(&self.out),
        }
    }

    /// How many samples failed, if an earlier run has done all there is to do.
    fn finished(&self, job: &Job, stage: &Stage) -> anyhow::Result<Option<usize>> {
        if !self.args.resume || is_unfinished(&self.out) {
            return Ok(None);
        }
        job.outputs.fetch(stage)?;
        let Some(failures) = job.outputs.finished(&job.key, &job.decision)? else {
            return Ok(None);
        };
        job.outputs.write_errors(&failures)?;
        remove_leftovers(&self.out)?;
        Ok(Some(failures.len()))
    }

    /// The results so far: none, or with `--resume` those of an unfinished run.
    fn open_parts(
        &self,
        job: &Job,
        copies: Option<Box<dyn RemoteParts>>,
        ui: &Ui,
    ) -> anyhow::Result<ResultParts> {
        let form = PartFormat {
            classes: &job.ensemble.spec().classes,
            embeddings: job.ensemble.embeddings(),
            part_size: self.args.part_size.into(),
        };
        let key = job.key.clone();
        let parts = ResultParts::open(&self.out, key, form, self.args.resume, copies)?;
        if parts.done() > 0 {
            let (done, all) = (parts.done(), job.samples.len());
            ui.note(&format!("going on after {done} of {all} samples"));
        }
        Ok(parts)
    }

    /// Scores what `parts` lack, until a signal comes; returns the seconds that took.
    fn score(
        &self,
        job: &mut Job,
        parts: &mut ResultParts,
        signals: &Signals,
        ui: &Ui,
    ) -> anyhow::Result<f64> {
        let files = self.files(signals.stop())?;
        let from = ScoreSource {
            samples: &job.samples,
            files: &*files,
            stop: signals.stop(),
        };
        let most_failures = self.args.max_errors.unwrap_or(usize::MAX);
        let seconds = job.scorer.score_parts(from, parts, most_failures, ui);
        seconds.map_err(|error| self.kept(error, parts, job.samples.len()))
    }

    /// What the results of all samples depend on.
    fn key(
        &self,
        ensemble: &Ensemble,
        started: &Started,
        images: &Images,
        listed: &[Sample],
    ) -> RunKey {
        let mut options = format!("batch {}", self.args.engine.batch);
        if self.args.vote.tta > 1 {
            options += &format!(", tta {} {}", self.args.vote.tta, self.args.vote.combine());
        }
        if self.args.embeddings.is_some() {
            options += ", embeddings";
        }
        if self.args.spec.is_some() {
            options += &format!(", {}", json!(ensemble.spec()));
        }
        if *started.config != EngineConfig::default() {
            options += &format!(", {}", json!(*started.config));
        }
        options += &images.layout.to_string();
        let models = ensemble.models().iter();
        RunKey {
            models: models.map(|model| model.sha256().to_owned()).collect(),
            engine: started.identity.clone(),
            options,
            samples: hash_of_ids(listed.iter().map(|sample| sample.id.as_str())),
            listed: listed.len(),
            shard: None,
            count: listed.len(),
        }
    }

    /// Says with an error what of the work is kept.
    fn kept(&self, error: anyhow::Error, parts: &ResultParts, samples: usize) -> anyhow::Error {
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
        let ids = self.args.ids.as_deref().map(output::read_ids).transpose()?;
        let stains = ensemble.stains();
        let samples = match located("--images", &self.images)? {
            Location::Remote(url) => {
                ensure!(
                    images.is_plain(),
                    "--images {url}: in a store, samples are <Id>_<stain> files or <Id>.ome.tif with \
                     all stains in one folder; leave out --pattern and --channel, or copy the files \
                     to this machine"
                );
                StoreFiles::find(&url, &self.args.store.options(), &stains).context("--images")?
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
                let options = self.args.store.options();
                Box::new(StoreFiles::open(&url, &options, stop.clone())?)
            }
        })
    }

    /// Says what was written and what failed.
    fn report(&self, job: &Job, tally: &Tally, stage: &Stage, ui: &Ui) -> anyhow::Result<Outcome> {
        let &Tally {
            scored,
            failed,
            seconds,
        } = tally;
        let (samples, started) = (job.samples.len(), job.scorer.started());
        let (args, vote) = (&self.args, &self.args.vote);
        let shown = |path: &PathBuf| stage.shown(path);
        let errors = shown(&job.outputs.errors);
        job.outputs.note(stage, ui);
        if args.json {
            ui.print_json(&json!({
                "model": shown(&args.model),
                "ensemble": vote.ensemble.iter().map(shown).collect::<Vec<_>>(),
                "tta": vote.tta,
                "tta_combine": (vote.tta > 1).then(|| vote.combine().to_string()),
                "engine": started.name,
                "engine_config": *started.config,
                "split": started.split,
                "shard": job.key.shard,
                "samples": samples,
                "resumed_at": samples - scored,
                "failed": failed,
                "seconds": seconds,
                "samples_per_s": scored as f64 / seconds.max(1e-9),
                "out": shown(&self.out),
                "scores": args.scores.as_ref().map(shown),
                "embeddings": args.embeddings.as_ref().map(shown),
                "errors": (failed > 0).then_some(&errors),
            }))?;
        }
        if failed > 0 {
            ui.warn(&format!(
                "{failed} of {samples} samples failed; they are listed in {errors}"
            ));
        }
        Ok(Outcome::with_failures(failed, args.failed_ok))
    }
}

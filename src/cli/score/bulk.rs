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
use super::shard::Share;
use crate::data::Images;
use crate::imaging::{FileSource, LocalFiles, Sample};
use crate::score::{
    EngineConfig, Ensemble, Form, Parts, RunKey, Source, hash_of_ids, is_unfinished, output,
    remove_leftovers,
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

impl Bulk {
    /// Scores the samples and writes the files.
    ///
    /// # Errors
    ///
    /// A file that is read or written is not what it should be, or the engine cannot be had or
    /// fails; what was scored is kept beside --out.
    pub(super) fn run(&self, stage: &Stage, ui: &Ui) -> anyhow::Result<Outcome> {
        let outputs = self.outputs();
        outputs.check()?;
        let share = self.args.shard.resolve()?;
        let ensemble = self.args.ensemble()?;
        let images = self.args.layout.of(&self.images)?;
        let listed = self.samples(&images, &ensemble)?;
        let mut scorer = Scorer::start(&ensemble, &self.args.engine, ui)?;
        if let Some(note) = self.args.vote.note(self.args.threshold) {
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
        let copies = stage.parts(&self.out, self.args.resume)?;
        if self.args.resume && !is_unfinished(&self.out) {
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
            part_size: self.args.part_size.into(),
        };
        let mut parts = Parts::open(&self.out, key, form, self.args.resume, copies)?;
        if parts.done() > 0 {
            ui.note(&format!(
                "going on after {} of {} samples",
                parts.done(),
                samples.len()
            ));
        }
        let signals = Signals::listen()?;
        let most_failures = self.args.max_errors.unwrap_or(usize::MAX);
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
        let without = outputs.write(&parts, &ensemble, &self.args.decision(&ensemble))?;
        if 2 * without > samples.len() {
            ui.note(&format!(
                "{without} of {} samples reach no class's threshold and have an empty prediction; \
                 --threshold lowers it, --keep-argmax keeps the most probable class, `rgby eval \
                 --tune-thresholds` finds better ones",
                samples.len()
            ));
        }
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
            scores: self.args.scores.as_deref(),
            embeddings: self.args.embeddings.as_deref(),
            errors: output::errors_path(&self.out),
        }
    }

    /// How many samples failed, if an earlier run has done all there is to do.
    fn finished(
        &self,
        outputs: &Outputs,
        key: &RunKey,
        ensemble: &Ensemble,
    ) -> anyhow::Result<Option<usize>> {
        if !self.args.resume || is_unfinished(&self.out) {
            return Ok(None);
        }
        let Some(failures) = outputs.finished(key, &self.args.decision(ensemble))? else {
            return Ok(None);
        };
        outputs.write_errors(&failures)?;
        remove_leftovers(&self.out)?;
        Ok(Some(failures.len()))
    }

    /// What the results of all samples depend on.
    fn key(&self, ensemble: &Ensemble, started: &Started, samples: &[Sample]) -> RunKey {
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
        if self.args.json {
            ui.print_json(&json!({
                "model": shown(&self.args.model),
                "ensemble": self.args.vote.ensemble.iter().map(shown).collect::<Vec<_>>(),
                "tta": self.args.vote.tta,
                "tta_combine": (self.args.vote.tta > 1).then(|| self.args.vote.combine().to_string()),
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
                "scores": self.args.scores.as_ref().map(shown),
                "embeddings": self.args.embeddings.as_ref().map(shown),
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
        Ok(if self.args.failed_ok {
            Outcome::Done
        } else {
            Outcome::SomeFailed
        })
    }
}

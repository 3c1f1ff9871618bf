//! Bulk scoring as one call: what `rgby score` does with a folder of images.

mod config;
mod error;
mod models;
pub(crate) mod output_files;
mod scheduler;
mod worker;

use std::sync::Arc;

pub use self::config::{ScoreConfig, ScoreFiles, ScoreModels, ScoreReport};
pub use self::error::{OutputFileError, ScoreRunError};
use self::models::StagedModels;
use self::output_files::OutputFiles;
pub use self::scheduler::{ShardChoice, ShardError, ShardSelection};
pub use self::worker::{WorkerConfig, WorkerReport, run_worker};
use crate::staging::{StagedFile, StagedFiles, StoreImages, parse_location};
use crate::{
    Decision, EngineConfig, Ensemble, PartFormat, RemoteParts, ResultParts, RunKey, RunOptions,
    ScoreObserver, ScoreSource, Scorer, StartedEngine, hash_of_ids, is_unfinished, output,
    remove_leftovers,
};
use rgby_data::Images;
use rgby_imaging::{FileSource, LocalFiles, Sample};
use rgby_store::Location;

/// Scores samples and writes predictions, probabilities and embeddings to files.
///
/// Results are collected in parts beside `out` until all samples are scored, so that a stopped or
/// killed run can be resumed. Unreadable samples are listed in `FILE.errors.csv`.
///
/// # Errors
///
/// An input is invalid, an output cannot be written, or the engine is not available or fails. The
/// samples scored before an error are kept.
pub fn run(
    config: &ScoreConfig,
    observer: &dyn ScoreObserver,
) -> Result<ScoreReport, ScoreRunError> {
    let mut staged = StagedFiles::new(config.store.clone());
    let outputs = OutputFiles::stage(config, &mut staged)?;
    let models = config.models.stage(&mut staged)?;
    let ids = config.ids.as_ref();
    let ids = ids.map(|path| staged.input("--ids", path)).transpose()?;
    let run = ScoreRun {
        config,
        observer,
        staged,
        outputs,
        models,
        ids,
    };
    run.execute()
}

/// A run whose files are local.
struct ScoreRun<'a> {
    config: &'a ScoreConfig,
    observer: &'a dyn ScoreObserver,
    staged: StagedFiles,
    outputs: OutputFiles,
    models: StagedModels,
    ids: Option<StagedFile>,
}

/// A run whose inputs are checked, opened and listed.
struct PreparedRun {
    ensemble: Ensemble,
    decision: Decision,
    scorer: Scorer,
    /// Samples of the shard.
    samples: Vec<Sample>,
    key: RunKey,
}

/// Numbers of a run for its report.
struct RunCounts {
    finished: bool,
    resumed_at: usize,
    scored: usize,
    failed: usize,
    seconds: f64,
}

impl ScoreRun<'_> {
    fn execute(&self) -> Result<ScoreReport, ScoreRunError> {
        let mut run = self.prepare()?;
        let copies = self
            .staged
            .parts(&self.outputs.predictions, self.config.resume)?;
        if let Some(failed) = self.finished(&run)? {
            self.observer.note("these samples are scored already");
            let counts = RunCounts {
                finished: true,
                resumed_at: run.samples.len(),
                scored: 0,
                failed,
                seconds: 0.0,
            };
            return Ok(self.report(&run, &counts));
        }
        let mut parts = self.open_parts(&run, copies)?;
        let (all, before) = (run.samples.len(), parts.done());
        self.observer.ready()?;
        let seconds = self.score(&mut run, &mut parts)?;
        let counts = RunCounts {
            finished: parts.done() >= all,
            resumed_at: before,
            scored: parts.done() - before,
            failed: parts.failed(),
            seconds,
        };
        if !counts.finished {
            let done = parts.done();
            self.observer.note(&format!(
                "stopped after {done} of {all} samples; resume with --resume"
            ));
            return Ok(self.report(&run, &counts));
        }
        let unpredicted = self.outputs.write(&parts, &run.ensemble, &run.decision)?;
        if 2 * unpredicted > all {
            self.observer.note(&format!(
                "{unpredicted} of {all} samples reach no class's threshold and have an empty \
                 prediction; --threshold lowers it, --keep-argmax keeps the most probable class, \
                 `rgby eval --tune-thresholds` finds better ones"
            ));
        }
        let outputs = &self.outputs;
        let written = &outputs.predictions;
        self.staged.publish(written, &[&outputs.errors])?;
        parts.remove()?;
        Ok(self.report(&run, &counts))
    }

    /// Checks and opens everything, the cheap things first.
    fn prepare(&self) -> Result<PreparedRun, ScoreRunError> {
        let config = self.config;
        self.outputs.check()?;
        let shard = config.shard.resolve()?;
        let ensemble = config
            .models
            .open(&self.models, config.embeddings.is_some())?;
        let listed = self.list_samples(&ensemble)?;
        let scorer = Scorer::start(&ensemble, &config.engine, self.observer)?;
        if let Some(note) = config.models.note() {
            self.observer.note(&note);
        }
        let key = self.key(&ensemble, scorer.started(), &listed);
        let samples = shard.select(listed, self.observer);
        Ok(PreparedRun {
            decision: config.models.decision(&ensemble),
            ensemble,
            scorer,
            key: RunKey {
                shard: shard.shard,
                count: samples.len(),
                ..key
            },
            samples,
        })
    }

    /// Lists the samples of all shards, in the order of the output.
    fn list_samples(&self, ensemble: &Ensemble) -> Result<Vec<Sample>, ScoreRunError> {
        let ids = self.ids.as_ref().map(output::read_staged_ids).transpose()?;
        let images = &self.config.images;
        let stains = ensemble.stains();
        let samples = match parse_location("--images", &images.path)? {
            Location::Remote(url) if images.is_plain() => {
                StoreImages::find(&url, &self.config.store, &stains)?
            }
            Location::Remote(url) => return Err(ScoreRunError::Layout(url)),
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

    /// Returns the identity of an unsharded run.
    fn key(&self, ensemble: &Ensemble, started: &StartedEngine, listed: &[Sample]) -> RunKey {
        let config = self.config;
        let layout = &config.images.layout;
        let options = RunOptions {
            batch: config.engine.batch,
            tta: config.models.tta,
            embeddings: config.embeddings.is_some(),
            spec: config.models.spec.as_ref().map(|_| ensemble.spec().clone()),
            engine_config: (*started.config != EngineConfig::default())
                .then(|| (*started.config).clone()),
            pattern: layout.pattern.as_ref().map(|p| p.as_str().to_owned()),
            channels: layout.channels.clone(),
        };
        let models = ensemble.models().iter();
        RunKey {
            models: models.map(|model| model.sha256().to_owned()).collect(),
            engine: started.identity.clone(),
            options: options.into(),
            samples: hash_of_ids(listed.iter().map(|sample| sample.id.as_str())),
            listed: listed.len(),
            shard: None,
            count: listed.len(),
        }
    }

    /// Returns the number of failed samples, if an earlier run has finished this one's work.
    fn finished(&self, run: &PreparedRun) -> Result<Option<usize>, ScoreRunError> {
        let out = &self.outputs.predictions;
        if !self.config.resume || is_unfinished(out.path()) {
            return Ok(None);
        }
        self.outputs.fetch(&self.staged)?;
        let Some(failures) = self.outputs.finished(&run.key, &run.decision)? else {
            return Ok(None);
        };
        self.outputs.write_errors(&failures)?;
        remove_leftovers(out.path())?;
        Ok(Some(failures.len()))
    }

    /// Opens the results so far: none, or with `resume` those of an unfinished run.
    fn open_parts(
        &self,
        run: &PreparedRun,
        copies: Option<Box<dyn RemoteParts>>,
    ) -> Result<ResultParts, ScoreRunError> {
        let format = PartFormat {
            classes: &run.ensemble.spec().classes,
            embeddings: run.ensemble.embeddings(),
            part_size: self.config.part_size,
        };
        let (out, key) = (&self.outputs.predictions, run.key.clone());
        let parts = ResultParts::open(out, key, format, self.config.resume, copies)?;
        if parts.done() > 0 {
            let (done, all) = (parts.done(), run.samples.len());
            self.observer
                .note(&format!("resuming after {done} of {all} samples"));
        }
        Ok(parts)
    }

    /// Scores the samples that `parts` lacks, until `stop` is set; returns the seconds taken.
    fn score(&self, run: &mut PreparedRun, parts: &mut ResultParts) -> Result<f64, ScoreRunError> {
        let files = self.image_files()?;
        let source = ScoreSource {
            samples: &run.samples,
            files: &*files,
            stop: &self.config.stop,
        };
        let max_errors = self.config.max_errors.unwrap_or(usize::MAX);
        let scored = run
            .scorer
            .score_parts(source, parts, max_errors, self.observer);
        scored.map_err(|cause| match parts.done() {
            0 => cause.into(),
            done => ScoreRunError::Kept {
                done,
                samples: run.samples.len(),
                out: self.outputs.predictions.name().to_owned(),
                cause,
            },
        })
    }

    /// Opens the source of the image files.
    fn image_files(&self) -> Result<Box<dyn FileSource>, ScoreRunError> {
        Ok(
            match parse_location("--images", &self.config.images.path)? {
                Location::Local(_) => Box::new(LocalFiles),
                Location::Remote(url) => {
                    let stop = Arc::clone(&self.config.stop);
                    Box::new(StoreImages::open(&url, &self.config.store, stop)?)
                }
            },
        )
    }

    fn report(&self, run: &PreparedRun, counts: &RunCounts) -> ScoreReport {
        let started = run.scorer.started();
        let name = |file: &StagedFile| file.name().to_owned();
        let outputs = &self.outputs;
        ScoreReport {
            finished: counts.finished,
            engine: started.name.clone(),
            engine_config: (*started.config).clone(),
            threads: started.threads,
            shard: run.key.shard,
            samples: run.samples.len(),
            resumed_at: counts.resumed_at,
            scored: counts.scored,
            failed: counts.failed,
            seconds: counts.seconds,
            files: ScoreFiles {
                model: name(&self.models.model),
                ensemble: self.models.ensemble.iter().map(name).collect(),
                out: name(&outputs.predictions),
                scores: outputs.scores.as_ref().map(name),
                embeddings: outputs.embeddings.as_ref().map(name),
                errors: name(&outputs.errors),
            },
        }
    }
}

#[cfg(test)]
mod tests;

//! A loaded model or ensemble that scores samples on all its sessions.

use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use super::{
    Device, Engine, EngineError, EngineOptions, Ensemble, ModelFile, PipelineOptions, ResultParts,
    ScoreError, ScoreObserver, ScoreSource, ScoreTable, StagedFile, StartedEngine, score_batches,
    score_samples,
};
use crate::model_metadata::Precision;
use rgby_common::memory;
use rgby_imaging::Sample;

/// A model or ensemble in its sessions, ready to score samples.
pub struct Scorer {
    engines: Vec<Box<dyn Engine>>,
    started: StartedEngine,
    options: PipelineOptions,
}

impl Scorer {
    /// Starts the engine, loads the models into all sessions and notes engine and threads.
    ///
    /// # Errors
    ///
    /// The engine or a device is not available, or the engine cannot load a model.
    pub fn start(
        ensemble: &Ensemble,
        options: &EngineOptions,
        observer: &dyn ScoreObserver,
    ) -> Result<Self, EngineError> {
        let started = options.start()?;
        let session = started.session_options();
        let is_fp16 = |model: &ModelFile| model.spec().precision == Precision::Fp16;
        if started.runtimes[0].is_tract() && ensemble.models().iter().any(is_fp16) {
            observer.warn(
                "tract computes float16 some fifty times slower than float32; install ONNX \
                 Runtime, or export with --precision fp32",
            );
        }
        // Loading takes about as long as scoring some tens of samples.
        let load_all = || {
            thread::scope(|scope| {
                let runtimes = started.runtimes.iter();
                let groups = runtimes.flat_map(|runtime| {
                    let groups = runtime.session_groups(started.threads.sessions);
                    groups.into_iter().map(move |count| (*runtime, count))
                });
                let load = |(runtime, count)| ensemble.load_several(runtime, &session, count);
                let loading: Vec<_> = groups
                    .map(|group| scope.spawn(move || load(group)))
                    .collect();
                let loaded = loading.into_iter().map(ScopedJoinHandle::join);
                let loaded =
                    loaded.map(|engines| engines.unwrap_or_else(|panic| resume_unwind(panic)));
                loaded.collect::<Result<Vec<_>, _>>()
            })
        };
        let engines = memory::while_loading(load_all)?;
        let engines = engines.into_iter().flatten().collect();
        started.notes().iter().for_each(|line| observer.note(line));
        let options = PipelineOptions {
            decode_threads: started.threads.decode_threads,
            // TensorRT builds an engine and cuDNN searches algorithms for each new shape.
            whole_batches: started.runtimes[0].device() != Device::Cpu,
            ..options.pipeline()
        };
        Ok(Self {
            engines,
            started,
            options,
        })
    }

    /// Scores the samples that `parts` lacks and appends them; returns the seconds taken.
    ///
    /// If `source.stop` is set meanwhile, running batches are finished and the rest is left.
    ///
    /// # Errors
    ///
    /// The engine fails, a part cannot be written, or more than `max_errors` samples fail. Samples
    /// scored before the error are kept in `parts`.
    pub fn score_parts(
        &mut self,
        source: ScoreSource,
        parts: &mut ResultParts,
        max_errors: usize,
        observer: &dyn ScoreObserver,
    ) -> Result<f64, ScoreError> {
        let start = Instant::now();
        let before = parts.done();
        observer.started(source.samples.len(), before);
        let remaining = &source.samples[before..];
        let source = ScoreSource {
            samples: remaining,
            ..source
        };
        let scored = score_batches(&mut self.engines, source, &self.options, &mut |batch| {
            let (first, count) = (batch.first, batch.probabilities.len());
            parts.push(&remaining[first..first + count], batch)?;
            observer.scored(before + first + count);
            let failed = parts.failed();
            if failed > max_errors {
                return Err(io::Error::other(format!(
                    "{failed} samples failed, more than --max-errors {max_errors}"
                )));
            }
            Ok(())
        });
        // Samples scored before an error are kept.
        let flushed = parts.flush();
        observer.finished();
        scored?;
        flushed?;
        let seconds = start.elapsed().as_secs_f64();
        let (count, failed) = (parts.done() - before, parts.failed());
        observer.note(&summary(count, failed, seconds));
        Ok(seconds)
    }

    /// Returns the sessions.
    pub fn engines(&mut self) -> &mut [Box<dyn Engine>] {
        &mut self.engines
    }

    /// Returns the sessions by value.
    #[must_use]
    pub fn into_engines(self) -> Vec<Box<dyn Engine>> {
        self.engines
    }

    /// Returns the options of the pipeline around the sessions.
    #[must_use]
    pub fn options(&self) -> &PipelineOptions {
        &self.options
    }

    /// Returns the started engine.
    #[must_use]
    pub fn started(&self) -> &StartedEngine {
        &self.started
    }

    /// Scores samples and notes the speed.
    ///
    /// # Errors
    ///
    /// The engine fails. Unreadable samples are no error; they are in the table's failures.
    pub fn score(
        &mut self,
        samples: &[Sample],
        observer: &dyn ScoreObserver,
    ) -> Result<ScoreTable, ScoreError> {
        score_with(&mut self.engines, samples, &self.options, observer)
    }
}

/// Scores samples with any engines and notes the speed.
///
/// # Errors
///
/// An engine fails. Unreadable samples are no error; they are in the table's failures.
pub fn score_with(
    engines: &mut [Box<dyn Engine>],
    samples: &[Sample],
    options: &PipelineOptions,
    observer: &dyn ScoreObserver,
) -> Result<ScoreTable, ScoreError> {
    observer.started(samples.len(), 0);
    let start = Instant::now();
    let table = score_samples(engines, samples, options, &|done| observer.scored(done));
    let seconds = start.elapsed().as_secs_f64();
    observer.finished();
    let table = table?;
    observer.note(&summary(table.ids.len(), table.failures.len(), seconds));
    Ok(table)
}

fn summary(samples: usize, failed: usize, seconds: f64) -> String {
    let rate = samples as f64 / seconds.max(1e-9);
    format!("{samples} samples, {failed} failed, {seconds:.1} s, {rate:.1} samples/s")
}

/// Opens the model that the option `flag` names, for scoring.
///
/// # Errors
///
/// The file was not written by `rgby export`; a run or checkpoint must be exported first.
pub fn open_model(flag: &'static str, path: &Path) -> Result<ModelFile, EngineError> {
    open_staged_model(flag, &StagedFile::local(path))
}

/// As [`open_model`], for a file that may be the local copy of a remote one.
pub(super) fn open_staged_model(
    flag: &'static str,
    file: &StagedFile,
) -> Result<ModelFile, EngineError> {
    let is_checkpoint = file.path().extension().is_some_and(|e| e == "safetensors");
    if is_checkpoint || file.path().is_dir() {
        return Err(EngineError::NotOnnx {
            flag,
            path: file.name().to_owned(),
        });
    }
    ModelFile::open_staged(file, None)
}

//! Pipeline from samples to probabilities: files are decoded while the engines infer.
//!
//! All decoding threads fill a batch together. A bounded queue connects them with the engines, and
//! results are returned in the order of the samples. A batch always consists of the same
//! consecutive samples, so that results do not depend on timing. Image buffers are allocated once
//! and reused.

mod guard;
mod job;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use self::job::{LoadError, PipelineJob};
use super::{Engine, EngineError};
use rgby_imaging::{
    DecodeLimits, FileSource, LocalFiles, PreprocessorSet, Sample, SampleErrorKind,
};

/// Batch size, threads and limits of the pipeline.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Samples per batch; 0 is taken as 1.
    pub batch: usize,
    /// Threads that read and decode images; 0 is taken as 1.
    pub decode_threads: usize,
    /// Limits of a single image.
    pub limits: DecodeLimits,
    /// Whether all batches have the same size; missing samples are padded with zeros. For engines
    /// with a high cost per new shape.
    pub whole_batches: bool,
}

/// A sample that could not be scored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    pub id: String,
    /// The unreadable file; empty if there is none.
    pub file: String,
    pub error: String,
}

/// Results in the order of the samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreTable {
    pub ids: Vec<String>,
    /// One probability per class, 0–1, or `None` if the sample is among the failures.
    pub probabilities: Vec<Option<Vec<f32>>>,
    /// Samples without probabilities, in order.
    pub failures: Vec<Failure>,
}

/// Why scoring failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    #[error("there is no engine to score with")]
    NoEngine,
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The results cannot be written.
    #[error(transparent)]
    Output(#[from] io::Error),
    #[error("cannot start threads to decode images: {0}\nhint: reduce --decode-threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The source of the image files failed as a whole.
    #[error("{0}")]
    Files(io::Error),
    /// A bug in a worker thread.
    #[error("a {worker} thread ended unexpectedly: {message}; this is a bug, please report it")]
    Panic {
        worker: &'static str,
        message: String,
    },
}

/// Scores `samples` on all `engines` in parallel (copies of one model) and returns all results.
///
/// Unreadable samples are listed in [`ScoreTable::failures`]; the rest is scored. `progress` is
/// called on this thread with the number of samples done so far.
///
/// # Errors
///
/// As [`score_batches`].
pub fn score_samples(
    engines: &mut [Box<dyn Engine>],
    samples: &[Sample],
    options: &PipelineOptions,
    progress: &dyn Fn(usize),
) -> Result<ScoreTable, ScoreError> {
    let mut table = ScoreTable {
        ids: samples.iter().map(|sample| sample.id.clone()).collect(),
        ..ScoreTable::default()
    };
    let source = ScoreSource {
        samples,
        files: &LocalFiles,
        stop: &AtomicBool::new(false),
    };
    score_batches(engines, source, options, &mut |batch| {
        table.probabilities.extend(batch.probabilities);
        table.failures.extend(batch.failures);
        progress(table.probabilities.len());
        Ok(())
    })?;
    Ok(table)
}

/// Samples to score, and the source of their files.
#[derive(Clone, Copy)]
pub struct ScoreSource<'a> {
    /// In the order of the results.
    pub samples: &'a [Sample],
    pub files: &'a dyn FileSource,
    /// When set, no further batch is started.
    pub stop: &'a AtomicBool,
}

/// The results of a batch, in the order of the samples.
#[derive(Debug)]
pub struct BatchScores {
    /// Index of the first sample of the batch.
    pub first: usize,
    /// One probability per class, or `None` if the sample failed.
    pub probabilities: Vec<Option<Vec<f32>>>,
    /// Embeddings, or `None` if the sample failed or embeddings are disabled.
    pub embeddings: Vec<Option<Vec<f32>>>,
    /// Samples without probabilities.
    pub failures: Vec<Failure>,
}

/// Receives the results of each batch in order; an error ends the scoring.
pub type Sink<'a> = dyn FnMut(BatchScores) -> io::Result<()> + 'a;

/// Scores samples on all `engines` in parallel (copies of one model) and passes the results to
/// `sink`, on this thread, batch by batch in the order of the samples.
///
/// Returns the number of samples passed: all, unless `stop` was set meanwhile. Then running batches
/// are finished, except those whose files do not arrive in time.
///
/// `1 + decode_threads / batch + 2 × engines` batches of images are in memory.
///
/// # Errors
///
/// The first error of an engine, of the file source as a whole or of `sink`, or the first panic of
/// a worker. It is returned after all threads have ended.
pub fn score_batches(
    engines: &mut [Box<dyn Engine>],
    source: ScoreSource,
    options: &PipelineOptions,
    sink: &mut Sink,
) -> Result<usize, ScoreError> {
    let inputs = engines.first().ok_or(ScoreError::NoEngine)?.inputs();
    let preparers = PreprocessorSet::new(&inputs);
    let load = |sample: &Sample, out: &mut [f32]| {
        let failure = |file: String, error: String| {
            LoadError::Sample(Failure {
                id: sample.id.clone(),
                file,
                error,
            })
        };
        if sample.paths().next().is_none() {
            let error = "there is no image file with this id";
            return Err(failure(String::new(), error.into()));
        }
        let loaded = preparers.load_from(source.files, sample, &options.limits, out);
        loaded.map_err(|error| match error.kind {
            SampleErrorKind::Unavailable(error) => LoadError::Files(error),
            kind => failure(error.file, kind.to_string()),
        })
    };
    let job = PipelineJob {
        source,
        max_file_bytes: options.limits.max_file_bytes,
        batch: options.batch.max(1),
        input_len: preparers.input_len(),
        load: &load,
        next: Mutex::new(0),
        taken: Mutex::new(0),
        failed: AtomicBool::new(false),
        whole_batches: options.whole_batches,
    };
    job.run(engines, options.decode_threads.max(1), sink)
}

#[cfg(test)]
mod tests;

//! From samples to probabilities: files are decoded while the engines infer.
//!
//! All decoding threads fill a batch together. Between them and the engines is a bounded queue, and
//! what they make is handed on in the samples' order. A batch is a fixed run of samples, so the
//! result does not depend on which thread was faster. The buffers of images are made beforehand and
//! go round.

mod guard;
mod job;

use std::io;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use self::job::{PipelineJob, Trouble};
use super::{Engine, EngineError};
use rgby_imaging::{DecodeLimits, FileSource, LocalFiles, Preparers, Sample, SampleErrorKind};

/// How [`score_samples`] spends the machine.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Samples a batch; 0 is taken as 1.
    pub batch: usize,
    /// Threads that read and decode images; 0 is taken as 1.
    pub decode_threads: usize,
    /// What a single image may cost.
    pub limits: DecodeLimits,
    /// Whether engines see no other batch than a whole one: what is missing, because there are no
    /// more samples or some failed, is filled with zeros. For engines that pay for each new shape.
    pub whole_batches: bool,
}

/// A sample that could not be scored.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// The sample.
    pub id: String,
    /// The file at fault; empty if there is none.
    pub file: String,
    /// What is wrong with it.
    pub error: String,
}

/// The result of scoring, in the order of the samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoreTable {
    /// Ids of the samples.
    pub ids: Vec<String>,
    /// A probability for each class, 0–1, or `None` where the sample is among the failures.
    pub probabilities: Vec<Option<Vec<f32>>>,
    /// The samples without probabilities, in order.
    pub failures: Vec<Failure>,
}

/// Why scoring ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// There is nothing to score with.
    #[error("no engine was given to score with")]
    NoEngine,
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The results could not be kept.
    #[error(transparent)]
    Output(#[from] io::Error),
    /// The system gives no threads.
    #[error("threads to decode images cannot be started: {0}; take fewer --decode-threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
    /// The samples' files cannot be had any more, which is no fault of theirs.
    #[error("{0}")]
    Files(io::Error),
    /// A bug in a worker thread.
    #[error("a {worker} thread ended unexpectedly: {message}; this is a bug, please report it")]
    Panic {
        /// What the thread did.
        worker: &'static str,
        /// What it said.
        message: String,
    },
}

/// Scores `samples` with all `engines` side by side (copies of one) and keeps all results.
///
/// Samples that cannot be read end up in [`ScoreTable::failures`]; the rest is scored. `progress`
/// is called on this thread with the number of samples done so far.
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
    let from = ScoreSource {
        samples,
        files: &LocalFiles,
        stop: &AtomicBool::new(false),
    };
    score_batches(engines, from, options, &mut |batch| {
        table.probabilities.extend(batch.probabilities);
        table.failures.extend(batch.failures);
        progress(table.probabilities.len());
        Ok(())
    })?;
    Ok(table)
}

/// What is to be scored.
#[derive(Clone, Copy)]
pub struct ScoreSource<'a> {
    /// The samples, in the order of their results.
    pub samples: &'a [Sample],
    /// Where their files come from.
    pub files: &'a dyn FileSource,
    /// Set from outside: no further batch is begun.
    pub stop: &'a AtomicBool,
}

/// The results of a batch, in the samples' order.
#[derive(Debug)]
pub struct BatchScores {
    /// The batch's first sample, by its place among all.
    pub first: usize,
    /// A probability for each class, or `None` where the sample failed.
    pub probabilities: Vec<Option<Vec<f32>>>,
    /// The pooled features in the same way, where the engines give any.
    pub embeddings: Vec<Option<Vec<f32>>>,
    /// The samples without probabilities.
    pub failures: Vec<Failure>,
}

/// Takes the results of each batch in turn; an error ends the scoring.
pub type Sink<'a> = dyn FnMut(BatchScores) -> io::Result<()> + 'a;

/// Scores the samples of `from` with all `engines` side by side (copies of one) and hands the
/// results to `sink`, on this thread, batch by batch in the samples' order. Returns how many it was
/// handed: all, unless `stop` was set meanwhile; then the batches under way are finished, those
/// apart whose files are not to be had in good time.
///
/// `1 + decode_threads / batch + 2 × engines` batches of images are in memory.
///
/// # Errors
///
/// The first error of an engine, of `files` as a whole or of `sink`, or the first panic of a worker,
/// after all threads have ended.
pub fn score_batches(
    engines: &mut [Box<dyn Engine>],
    from: ScoreSource,
    options: &PipelineOptions,
    sink: &mut Sink,
) -> Result<usize, ScoreError> {
    let inputs = engines.first().ok_or(ScoreError::NoEngine)?.inputs();
    let preparers = Preparers::new(&inputs);
    let load = |sample: &Sample, out: &mut [f32]| {
        let failure = |file: String, error: String| {
            Trouble::Sample(Failure {
                id: sample.id.clone(),
                file,
                error,
            })
        };
        if sample.paths().next().is_none() {
            let error = "there is no image file with this id";
            return Err(failure(String::new(), error.into()));
        }
        let loaded = preparers.load_from(from.files, sample, &options.limits, out);
        loaded.map_err(|error| match error.kind {
            SampleErrorKind::Unavailable(error) => Trouble::Files(error),
            kind => failure(error.file, kind.to_string()),
        })
    };
    let job = PipelineJob {
        from,
        max_file_bytes: options.limits.max_file_bytes,
        batch: options.batch.max(1),
        input_len: preparers.input_len(),
        load: &load,
        next: Mutex::new(0),
        taken: Mutex::new(0),
        lost: AtomicBool::new(false),
        whole_batches: options.whole_batches,
    };
    job.run(engines, options.decode_threads.max(1), sink)
}

#[cfg(test)]
mod tests;

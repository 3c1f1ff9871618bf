//! From samples to probabilities: files are decoded while the engines infer.
//!
//! Decoders and engines are threads with a bounded queue of batches between them. A batch is a
//! fixed run of samples, so the result does not depend on which thread was faster.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::{Engine, EngineError};
use crate::imaging::{DecodeLimits, Preparer, Sample};

/// How [`score`] spends the machine.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Samples a batch; 0 is taken as 1.
    pub batch: usize,
    /// Threads that read and decode images; 0 is taken as 1. Each holds one batch.
    pub decode_threads: usize,
    /// What a single image may cost.
    pub limits: DecodeLimits,
}

/// A sample that could not be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The sample.
    pub id: String,
    /// The file at fault; empty if there is none.
    pub file: String,
    /// What is wrong with it.
    pub error: String,
}

/// The result of scoring, in the order of the samples.
#[derive(Debug, Clone, PartialEq)]
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
    /// A bug in a worker thread.
    #[error("a {worker} thread ended unexpectedly: {message}; this is a bug, please report it")]
    Panic {
        /// What the thread did.
        worker: &'static str,
        /// What it said.
        message: String,
    },
}

/// Scores `samples` with all `engines` side by side (copies of one model).
///
/// Samples that cannot be read end up in [`ScoreTable::failures`]; the rest is scored. At most
/// `decode_threads + 2 × engines` batches of images are in memory. `progress` is called on this
/// thread with the number of samples done so far.
///
/// # Errors
///
/// The first engine error or worker panic, after all threads have ended.
pub fn score(
    engines: &mut [Box<dyn Engine>],
    samples: &[Sample],
    options: &PipelineOptions,
    progress: &dyn Fn(usize),
) -> Result<ScoreTable, ScoreError> {
    let preprocess = engines
        .first()
        .ok_or(ScoreError::NoEngine)?
        .spec()
        .preprocess
        .clone();
    let input_len = preprocess.input_len();
    let preparer = Preparer::new(preprocess);
    let load = |sample: &Sample, out: &mut [f32]| {
        let failure = |file: String, error: String| Failure {
            id: sample.id.clone(),
            file,
            error,
        };
        if sample.files.iter().all(Option::is_none) {
            let error = "there is no image file with this id";
            return Err(failure(String::new(), error.into()));
        }
        preparer
            .load(sample, &options.limits, out)
            .map_err(|e| failure(e.file, e.kind.to_string()))
    };
    let job = Job {
        samples,
        batch: options.batch.max(1),
        input_len,
        load: &load,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    job.run(engines, options.decode_threads.max(1), progress)
}

/// Reads one sample into `[C, H, W]` float32.
type Load<'a> = dyn Fn(&Sample, &mut [f32]) -> Result<(), Failure> + Sync + 'a;

/// What all threads share.
struct Job<'a> {
    samples: &'a [Sample],
    batch: usize,
    input_len: usize,
    load: &'a Load<'a>,
    /// The first sample that no decoder has taken yet.
    next: AtomicUsize,
    /// Set once the result is lost: whatever is still queued is dropped.
    stop: AtomicBool,
}

/// Decoded samples on their way to an engine.
struct Decoded {
    /// The samples that `images` holds, by index.
    rows: Vec<usize>,
    /// `[rows, C, H, W]`.
    images: Vec<f32>,
    failures: Vec<(usize, Failure)>,
}

/// Decoded samples with their probabilities.
struct Scored {
    rows: Vec<usize>,
    /// `[rows, classes]`.
    probabilities: Vec<f32>,
    failures: Vec<(usize, Failure)>,
}

impl Job<'_> {
    fn run(
        &self,
        engines: &mut [Box<dyn Engine>],
        decoders: usize,
        progress: &dyn Fn(usize),
    ) -> Result<ScoreTable, ScoreError> {
        let (to_engines, decoded) = bounded(engines.len());
        let (to_table, scored) = bounded(engines.len());
        thread::scope(|scope| {
            for _ in 0..decoders {
                let (output, errors) = (to_engines.clone(), to_table.clone());
                let work = move || {
                    self.decode(&output);
                    Ok(())
                };
                scope.spawn(move || guard("decoding", &errors, work));
            }
            for engine in engines {
                let (input, output) = (decoded.clone(), to_table.clone());
                scope.spawn(move || {
                    let work = || self.infer(&mut **engine, &input, &output);
                    guard("scoring", &output, work);
                });
            }
            // The queues end when the last thread that uses them does.
            drop((to_engines, decoded, to_table));
            self.collect(&scored, progress)
        })
    }

    /// Decodes batch after batch until there are none left.
    fn decode(&self, output: &Sender<Decoded>) {
        while !self.stop.load(Ordering::Relaxed) {
            let start = self.next.fetch_add(self.batch, Ordering::Relaxed);
            let end = self.samples.len().min(start.saturating_add(self.batch));
            if start >= end {
                break;
            }
            let mut images = vec![0.0; (end - start) * self.input_len];
            let (mut rows, mut failures) = (Vec::new(), Vec::new());
            for index in start..end {
                let at = rows.len() * self.input_len;
                match (self.load)(&self.samples[index], &mut images[at..at + self.input_len]) {
                    Ok(()) => rows.push(index),
                    Err(failure) => failures.push((index, failure)),
                }
            }
            images.truncate(rows.len() * self.input_len);
            if output
                .send(Decoded {
                    rows,
                    images,
                    failures,
                })
                .is_err()
            {
                break; // no engine is left; its error is on its way
            }
        }
    }

    /// Runs one engine on batches from the queue until it ends.
    fn infer(
        &self,
        engine: &mut dyn Engine,
        input: &Receiver<Decoded>,
        output: &Sender<Result<Scored, ScoreError>>,
    ) -> Result<(), ScoreError> {
        for Decoded {
            rows,
            images,
            failures,
        } in input
        {
            if self.stop.load(Ordering::Relaxed) {
                continue;
            }
            let probabilities = match rows.len() {
                0 => Vec::new(),
                count => engine.run(&images, count)?,
            };
            drop(images);
            if output
                .send(Ok(Scored {
                    rows,
                    probabilities,
                    failures,
                }))
                .is_err()
            {
                break;
            }
        }
        Ok(())
    }

    /// Puts the results in order until all threads have ended; keeps the first error.
    fn collect(
        &self,
        scored: &Receiver<Result<Scored, ScoreError>>,
        progress: &dyn Fn(usize),
    ) -> Result<ScoreTable, ScoreError> {
        let mut probabilities = vec![None; self.samples.len()];
        let mut failures = Vec::new();
        let (mut done, mut error) = (0, None);
        for result in scored {
            match result {
                Ok(batch) => {
                    done += batch.rows.len() + batch.failures.len();
                    let classes = batch.probabilities.len() / batch.rows.len().max(1);
                    for (at, index) in batch.rows.into_iter().enumerate() {
                        let row = &batch.probabilities[at * classes..(at + 1) * classes];
                        probabilities[index] = Some(row.to_vec());
                    }
                    failures.extend(batch.failures);
                    progress(done);
                }
                Err(first) => {
                    self.stop.store(true, Ordering::Relaxed);
                    error.get_or_insert(first);
                }
            }
        }
        if let Some(error) = error {
            return Err(error);
        }
        failures.sort_by_key(|(index, _)| *index);
        Ok(ScoreTable {
            ids: self
                .samples
                .iter()
                .map(|sample| sample.id.clone())
                .collect(),
            probabilities,
            failures: failures.into_iter().map(|(_, failure)| failure).collect(),
        })
    }
}

/// Runs a worker and reports its error, or its panic as one.
fn guard(
    worker: &'static str,
    errors: &Sender<Result<Scored, ScoreError>>,
    work: impl FnOnce() -> Result<(), ScoreError>,
) {
    let error = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(panic) => ScoreError::Panic {
            worker,
            message: panic_message(&*panic),
        },
    };
    // Sending fails only if the collector is gone, and nobody waits for the error then.
    let _ = errors.send(Err(error));
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;

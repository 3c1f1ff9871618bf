//! From samples to probabilities: files are decoded while the engines infer.
//!
//! Decoders and engines are threads with a bounded queue of batches between them, and what they
//! make is handed on in the samples' order. A batch is a fixed run of samples, so the result does
//! not depend on which thread was faster. The buffers of images are made beforehand and go round.

mod guard;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};

use self::guard::guard;
use super::{Answer, Buffer, Engine, EngineError};
use crate::imaging::{DecodeLimits, FileSource, LocalFiles, Preparers, Sample, SampleErrorKind};

/// How [`score`] spends the machine.
#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Samples a batch; 0 is taken as 1.
    pub batch: usize,
    /// Threads that read and decode images; 0 is taken as 1. Each holds one batch.
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
    /// The results could not be kept.
    #[error(transparent)]
    Output(#[from] io::Error),
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
/// As [`score_to`].
pub fn score(
    engines: &mut [Box<dyn Engine>],
    samples: &[Sample],
    options: &PipelineOptions,
    progress: &dyn Fn(usize),
) -> Result<ScoreTable, ScoreError> {
    let mut table = ScoreTable {
        ids: samples.iter().map(|sample| sample.id.clone()).collect(),
        probabilities: Vec::with_capacity(samples.len()),
        failures: Vec::new(),
    };
    let from = Source {
        samples,
        files: &LocalFiles,
        stop: &AtomicBool::new(false),
    };
    score_to(engines, from, options, &mut |batch| {
        table.probabilities.extend(batch.probabilities);
        table.failures.extend(batch.failures);
        progress(table.probabilities.len());
        Ok(())
    })?;
    Ok(table)
}

/// What is to be scored.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The samples, in the order of their results.
    pub samples: &'a [Sample],
    /// Where their files come from.
    pub files: &'a dyn FileSource,
    /// Set from outside: no further batch is begun.
    pub stop: &'a AtomicBool,
}

/// Scores the samples of `from` with all `engines` side by side (copies of one) and hands the
/// results to `sink`, on this thread, batch by batch in the samples' order. Returns how many it was
/// handed: all, unless `stop` was set meanwhile; then the batches under way are finished, those
/// apart whose files are not to be had in good time.
///
/// At most `decode_threads + 2 × engines` batches of images are in memory.
///
/// # Errors
///
/// The first error of an engine, of `files` as a whole or of `sink`, or the first panic of a worker,
/// after all threads have ended.
pub fn score_to(
    engines: &mut [Box<dyn Engine>],
    from: Source,
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
    let job = Job {
        from,
        max_file_bytes: options.limits.max_file_bytes,
        batch: options.batch.max(1),
        input_len: preparers.input_len(),
        load: &load,
        next: AtomicUsize::new(0),
        lost: AtomicBool::new(false),
        whole_batches: options.whole_batches,
    };
    job.run(engines, options.decode_threads.max(1), sink)
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

/// Reads one sample into a row of the engines' inputs.
type Load<'a> = dyn Fn(&Sample, &mut [f32]) -> Result<(), Trouble> + Sync + 'a;

/// Why a sample was not read.
enum Trouble {
    /// It cannot be.
    Sample(Failure),
    /// No sample can be any more.
    Files(io::Error),
}

/// What all threads share.
struct Job<'a> {
    from: Source<'a>,
    max_file_bytes: u64,
    batch: usize,
    input_len: usize,
    load: &'a Load<'a>,
    /// The first sample that no decoder has taken yet.
    next: AtomicUsize,
    /// Set once the result is lost: whatever is still queued is dropped.
    lost: AtomicBool,
    whole_batches: bool,
}

/// Decoded samples on their way to an engine.
struct Decoded {
    first: usize,
    /// The samples that `images` holds, by index.
    rows: Vec<usize>,
    /// Room for a whole batch; one row a sample: the engines' [`inputs`](Engine::inputs).
    images: Buffer,
    failures: Vec<Failure>,
}

impl Job<'_> {
    fn run(
        &self,
        engines: &mut [Box<dyn Engine>],
        decoders: usize,
        sink: &mut Sink,
    ) -> Result<usize, ScoreError> {
        let (to_engines, decoded) = bounded(engines.len());
        let (to_sink, scored) = bounded(engines.len());
        let count = decoders + 2 * engines.len();
        // Every buffer has room, so that giving one back never waits.
        let (give_back, buffers) = bounded(count);
        for _ in 0..count {
            // There is room, and `buffers` lives.
            let _ = give_back.send(engines[0].buffer(self.batch * self.input_len)?);
        }
        thread::scope(|scope| {
            for _ in 0..decoders {
                let (output, errors) = (to_engines.clone(), to_sink.clone());
                let buffers = buffers.clone();
                let work = move || self.decode(&output, &buffers);
                scope.spawn(move || guard("decoding", &errors, work));
            }
            for engine in engines {
                let (input, output) = (decoded.clone(), to_sink.clone());
                let give_back = give_back.clone();
                scope.spawn(move || {
                    let work = || self.infer(&mut **engine, &input, &output, &give_back);
                    guard("scoring", &output, work);
                });
            }
            // The queues end when the last thread that uses them does.
            drop((to_engines, decoded, to_sink, give_back, buffers));
            self.collect(&scored, sink)
        })
    }

    /// Decodes batch after batch until there are none left.
    fn decode(
        &self,
        output: &Sender<Decoded>,
        buffers: &Receiver<Buffer>,
    ) -> Result<(), ScoreError> {
        let Source { samples, stop, .. } = self.from;
        while !stop.load(Ordering::Relaxed) && !self.lost.load(Ordering::Relaxed) {
            let first = self.next.fetch_add(self.batch, Ordering::Relaxed);
            let end = samples.len().min(first.saturating_add(self.batch));
            if first >= end {
                break;
            }
            let Ok(mut images) = buffers.recv() else {
                break; // no engine is left; its error is on its way
            };
            let (mut rows, mut failures) = (Vec::new(), Vec::new());
            for index in first..end {
                let at = rows.len() * self.input_len;
                let row = &mut images.values_mut()[at..at + self.input_len];
                match self.read(index..end, row) {
                    Ok(()) => rows.push(index),
                    Err(Trouble::Sample(failure)) => failures.push(failure),
                    // What is not had in time before the process ends is left for another run.
                    Err(Trouble::Files(_)) if stop.load(Ordering::Relaxed) => return Ok(()),
                    Err(Trouble::Files(error)) => return Err(ScoreError::Files(error)),
                }
            }
            let decoded = Decoded {
                first,
                rows,
                images,
                failures,
            };
            if output.send(decoded).is_err() {
                break; // no engine is left; its error is on its way
            }
        }
        Ok(())
    }

    /// Reads the first of these samples, the rest of which come after it.
    fn read(&self, samples: Range<usize>, out: &mut [f32]) -> Result<(), Trouble> {
        let Source {
            samples: all,
            files,
            ..
        } = self.from;
        let sample = &all[samples.start];
        let next = self.next.load(Ordering::Relaxed).min(all.len());
        let coming = all[samples].iter().chain(&all[next..]);
        files.expect(&mut coming.flat_map(Sample::paths), self.max_file_bytes);
        (self.load)(sample, out).inspect_err(|_| files.forget(&mut sample.paths()))
    }

    /// Runs one engine on batches from the queue until it ends.
    fn infer(
        &self,
        engine: &mut dyn Engine,
        input: &Receiver<Decoded>,
        output: &Sender<Result<BatchScores, ScoreError>>,
        give_back: &Sender<Buffer>,
    ) -> Result<(), ScoreError> {
        for mut batch in input {
            if self.lost.load(Ordering::Relaxed) {
                // Decoders that wait for it come to see that, too.
                let _ = give_back.send(batch.images);
                continue;
            }
            let images = batch.images.values_mut();
            let filled = batch.rows.len() * self.input_len;
            let answer = match batch.rows.len() {
                0 => Answer::default(),
                count if self.whole_batches => {
                    images[filled..].fill(0.0);
                    let answer = engine.answer(images, self.batch)?;
                    answer.truncated(count, self.batch)
                }
                count => engine.answer(&images[..filled], count)?,
            };
            // Nobody takes it any more once all is decoded.
            let _ = give_back.send(batch.images);
            let rows: Vec<usize> = batch.rows.iter().map(|index| index - batch.first).collect();
            let count = rows.len() + batch.failures.len();
            let scores = BatchScores {
                first: batch.first,
                probabilities: spread(&answer.probabilities, &rows, count),
                embeddings: spread(&answer.embeddings, &rows, count),
                failures: batch.failures,
            };
            if output.send(Ok(scores)).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Hands the results on in their order until all threads have ended; keeps the first error.
    fn collect(
        &self,
        scored: &Receiver<Result<BatchScores, ScoreError>>,
        sink: &mut Sink,
    ) -> Result<usize, ScoreError> {
        let mut early: BTreeMap<usize, BatchScores> = BTreeMap::new();
        let (mut done, mut error) = (0, None);
        for result in scored {
            let handed = result.and_then(|batch| {
                early.insert(batch.first, batch);
                while let Some(batch) = early.remove(&done) {
                    done += batch.probabilities.len();
                    if error.is_none() {
                        sink(batch)?;
                    }
                }
                Ok(())
            });
            if let Err(first) = handed {
                self.lost.store(true, Ordering::Relaxed);
                error.get_or_insert(first);
            }
        }
        match error {
            Some(error) => Err(error),
            None => Ok(done),
        }
    }
}

/// The rows of `values` in the places `rows` of `count`.
fn spread(values: &[f32], rows: &[usize], count: usize) -> Vec<Option<Vec<f32>>> {
    let mut places = vec![None; count];
    let width = values.len() / rows.len().max(1);
    if width > 0 {
        for (place, row) in rows.iter().zip(values.chunks_exact(width)) {
            places[*place] = Some(row.to_vec());
        }
    }
    places
}

#[cfg(test)]
mod tests;

//! Threads of the pipeline: decoders that fill a batch together, engines, and the collector that
//! orders their results.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::guard::guard;
use super::{BatchScores, Failure, ScoreError, ScoreSource, Sink};
use crate::{Buffer, Engine, InferenceOutput};
use rgby_imaging::Sample;

/// Decodes a sample into a row of input.
pub(super) type Load<'a> = dyn Fn(&Sample, &mut [f32]) -> Result<(), LoadError> + Sync + 'a;

/// Why a sample cannot be decoded.
pub(super) enum LoadError {
    /// Only this sample is unreadable.
    Sample(Failure),
    /// The file source failed as a whole.
    Files(io::Error),
}

/// State shared by all threads.
pub(super) struct PipelineJob<'a> {
    pub(super) source: ScoreSource<'a>,
    pub(super) max_file_bytes: u64,
    pub(super) batch: usize,
    pub(super) input_len: usize,
    pub(super) load: &'a Load<'a>,
    /// The first sample that is in no batch yet. Batches are started one at a time, so that samples
    /// are decoded in order.
    pub(super) next: Mutex<usize>,
    /// The first sample that no decoder has started.
    pub(super) taken: Mutex<usize>,
    /// Set after an error: queued batches are dropped.
    pub(super) failed: AtomicBool,
    pub(super) whole_batches: bool,
}

/// A decoded batch.
struct Decoded {
    first: usize,
    /// Indices in the batch of the samples in `images`.
    rows: Vec<usize>,
    /// One row per sample: its [`inputs`](Engine::inputs).
    images: Buffer,
    failures: Vec<Failure>,
}

impl PipelineJob<'_> {
    /// Scores all samples with `decoders` decoding threads and one thread per engine.
    pub(super) fn run(
        &self,
        engines: &mut [Box<dyn Engine>],
        decoders: usize,
        sink: &mut Sink,
    ) -> Result<usize, ScoreError> {
        let pool = ThreadPoolBuilder::new().num_threads(decoders).build()?;
        // While the last rows of a batch are decoded, idle decoders start the next one.
        let open = 1 + decoders.div_ceil(self.batch);
        let (to_engines, decoded) = bounded(engines.len());
        let (to_sink, scored) = bounded(engines.len());
        let count = open + 2 * engines.len();
        // The queue has room for all buffers, so that returning one never blocks.
        let (give_back, buffers) = bounded(count);
        for _ in 0..count {
            // Sending cannot fail: there is room, and `buffers` is alive.
            let _ = give_back.send(engines[0].buffer(self.batch * self.input_len)?);
        }
        thread::scope(|scope| {
            for _ in 0..open {
                let (output, errors) = (to_engines.clone(), to_sink.clone());
                let (buffers, pool) = (buffers.clone(), &pool);
                let work = move || self.fill(pool, &output, &buffers);
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
            // The queues close when the last thread that uses them ends.
            drop((to_engines, decoded, to_sink, give_back, buffers));
            self.collect(&scored, sink)
        })
    }

    /// Decodes batches until all samples are done.
    fn fill(
        &self,
        pool: &ThreadPool,
        output: &Sender<Decoded>,
        buffers: &Receiver<Buffer>,
    ) -> Result<(), ScoreError> {
        let ScoreSource { samples, stop, .. } = self.source;
        while !stop.load(Ordering::Relaxed) && !self.failed.load(Ordering::Relaxed) {
            let Ok(mut images) = buffers.recv() else {
                break; // all engines have ended; their error is queued
            };
            let mut next = lock(&self.next);
            let first = *next;
            let end = samples.len().min(first.saturating_add(self.batch));
            if first >= end {
                break;
            }
            *next = end;
            let errors = self.decode(first..end, images.values_mut(), pool, next);
            let mut failures = BTreeMap::new();
            for (index, error) in errors {
                match error {
                    LoadError::Sample(failure) => failures.insert(index - first, failure),
                    // Files that do not arrive before the process stops are left for a resumed run.
                    LoadError::Files(_) if stop.load(Ordering::Relaxed) => return Ok(()),
                    LoadError::Files(error) => return Err(ScoreError::Files(error)),
                };
            }
            let rows = (0..end - first).filter(|row| !failures.contains_key(row));
            let rows: Vec<usize> = rows.collect();
            for (to, from) in rows.iter().enumerate().filter(|(to, from)| to != *from) {
                let from = from * self.input_len;
                let images = images.values_mut();
                images.copy_within(from..from + self.input_len, to * self.input_len);
            }
            let decoded = Decoded {
                first,
                rows,
                images,
                failures: failures.into_values().collect(),
            };
            if output.send(decoded).is_err() {
                break; // all engines have ended; their error is queued
            }
        }
        Ok(())
    }

    /// Decodes samples into rows of `images`, on all threads of `pool`; releases `turn` once the
    /// work is distributed. Returns the errors, by sample.
    fn decode(
        &self,
        samples: Range<usize>,
        images: &mut [f32],
        pool: &ThreadPool,
        turn: MutexGuard<usize>,
    ) -> Vec<(usize, LoadError)> {
        let count = samples.len();
        let rows = Mutex::new(samples.zip(images.chunks_exact_mut(self.input_len)));
        let errors = Mutex::new(Vec::new());
        let work = || {
            loop {
                let Some((index, row)) = lock(&rows).next() else {
                    break;
                };
                if let Err(error) = self.read(index, row) {
                    if matches!(error, LoadError::Files(_)) {
                        // The remaining samples would fail as well.
                        lock(&rows).by_ref().for_each(drop);
                    }
                    lock(&errors).push((index, error));
                }
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 0..count.min(pool.current_num_threads()) {
                scope.spawn(|_| work());
            }
            drop(turn);
        });
        errors.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decodes a sample, and announces the samples after it to the file source.
    fn read(&self, index: usize, out: &mut [f32]) -> Result<(), LoadError> {
        let ScoreSource { samples, files, .. } = self.source;
        let sample = &samples[index];
        files.want(&mut sample.paths(), self.max_file_bytes);
        {
            // The lock is held meanwhile: an announced file must not be read before it is
            // requested.
            let mut taken = lock(&self.taken);
            *taken = (*taken).max(index + 1);
            let mut coming = samples[*taken..].iter().flat_map(Sample::paths);
            files.expect(&mut coming, self.max_file_bytes);
        }
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
            if self.failed.load(Ordering::Relaxed) {
                // Decoders that wait for a buffer notice the error, too.
                let _ = give_back.send(batch.images);
                continue;
            }
            let images = batch.images.values_mut();
            let filled = batch.rows.len() * self.input_len;
            let inferred = match batch.rows.len() {
                0 => InferenceOutput::default(),
                count if self.whole_batches => {
                    images[filled..].fill(0.0);
                    let inferred = engine.infer(images, self.batch)?;
                    inferred.truncated(count, self.batch)
                }
                count => engine.infer(&images[..filled], count)?,
            };
            // Sending fails only after all samples are decoded.
            let _ = give_back.send(batch.images);
            let count = batch.rows.len() + batch.failures.len();
            let scores = BatchScores {
                first: batch.first,
                probabilities: spread(&inferred.probabilities, &batch.rows, count),
                embeddings: spread(&inferred.embeddings, &batch.rows, count),
                failures: batch.failures,
            };
            if output.send(Ok(scores)).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Passes the results to `sink` in order until all threads have ended; keeps the first error.
    fn collect(
        &self,
        scored: &Receiver<Result<BatchScores, ScoreError>>,
        sink: &mut Sink,
    ) -> Result<usize, ScoreError> {
        let mut early: BTreeMap<usize, BatchScores> = BTreeMap::new();
        let (mut done, mut error) = (0, None);
        for result in scored {
            let passed = result.and_then(|batch| {
                early.insert(batch.first, batch);
                while let Some(batch) = early.remove(&done) {
                    done += batch.probabilities.len();
                    if error.is_none() {
                        sink(batch)?;
                    }
                }
                Ok(())
            });
            if let Err(first) = passed {
                self.failed.store(true, Ordering::Relaxed);
                error.get_or_insert(first);
            }
        }
        match error {
            Some(error) => Err(error),
            None => Ok(done),
        }
    }
}

/// A panic while a lock is held leaves the data consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Places the rows of `values` at the indices `rows` of `count`.
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

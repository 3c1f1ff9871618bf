//! The threads of a run of the pipeline: decoders that fill a batch together, engines, and the
//! collector that puts their results in order.

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

/// Reads one sample into a row of the engines' inputs.
pub(super) type Load<'a> = dyn Fn(&Sample, &mut [f32]) -> Result<(), Trouble> + Sync + 'a;

/// Why a sample was not read.
pub(super) enum Trouble {
    /// It cannot be.
    Sample(Failure),
    /// No sample can be any more.
    Files(io::Error),
}

/// What all threads share.
pub(super) struct PipelineJob<'a> {
    pub(super) from: ScoreSource<'a>,
    pub(super) max_file_bytes: u64,
    pub(super) batch: usize,
    pub(super) input_len: usize,
    pub(super) load: &'a Load<'a>,
    /// The first sample that is in no batch yet. Batches are begun one at a time, so that decoders
    /// take the samples in their order.
    pub(super) next: Mutex<usize>,
    /// The first sample that no decoder has taken yet.
    pub(super) taken: Mutex<usize>,
    /// Set once the result is lost: whatever is still queued is dropped.
    pub(super) lost: AtomicBool,
    pub(super) whole_batches: bool,
}

/// Decoded samples on their way to an engine.
struct Decoded {
    first: usize,
    /// The samples that `images` holds, by their place in the batch.
    rows: Vec<usize>,
    /// Room for a whole batch; one row a sample: the engines' [`inputs`](Engine::inputs).
    images: Buffer,
    failures: Vec<Failure>,
}

impl PipelineJob<'_> {
    /// Scores all samples with `decoders` threads that decode and one for each engine.
    pub(super) fn run(
        &self,
        engines: &mut [Box<dyn Engine>],
        decoders: usize,
        sink: &mut Sink,
    ) -> Result<usize, ScoreError> {
        let pool = ThreadPoolBuilder::new().num_threads(decoders).build()?;
        // While one batch gets its last rows, decoders that are free begin another.
        let open = 1 + decoders.div_ceil(self.batch);
        let (to_engines, decoded) = bounded(engines.len());
        let (to_sink, scored) = bounded(engines.len());
        let count = open + 2 * engines.len();
        // Every buffer has room, so that giving one back never waits.
        let (give_back, buffers) = bounded(count);
        for _ in 0..count {
            // There is room, and `buffers` lives.
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
            // The queues end when the last thread that uses them does.
            drop((to_engines, decoded, to_sink, give_back, buffers));
            self.collect(&scored, sink)
        })
    }

    /// Fills batch after batch until there are none left.
    fn fill(
        &self,
        pool: &ThreadPool,
        output: &Sender<Decoded>,
        buffers: &Receiver<Buffer>,
    ) -> Result<(), ScoreError> {
        let ScoreSource { samples, stop, .. } = self.from;
        while !stop.load(Ordering::Relaxed) && !self.lost.load(Ordering::Relaxed) {
            let Ok(mut images) = buffers.recv() else {
                break; // no engine is left; its error is on its way
            };
            let mut next = lock(&self.next);
            let first = *next;
            let end = samples.len().min(first.saturating_add(self.batch));
            if first >= end {
                break;
            }
            *next = end;
            let troubles = self.decode(first..end, images.values_mut(), pool, next);
            let mut failures = BTreeMap::new();
            for (index, trouble) in troubles {
                match trouble {
                    Trouble::Sample(failure) => failures.insert(index - first, failure),
                    // What is not had in time before the process ends is left for another run.
                    Trouble::Files(_) if stop.load(Ordering::Relaxed) => return Ok(()),
                    Trouble::Files(error) => return Err(ScoreError::Files(error)),
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
                break; // no engine is left; its error is on its way
            }
        }
        Ok(())
    }

    /// Decodes samples into rows of `images`, on all threads of `pool`; `turn` ends once those have
    /// got the work. Returns what went wrong, by sample.
    fn decode(
        &self,
        samples: Range<usize>,
        images: &mut [f32],
        pool: &ThreadPool,
        turn: MutexGuard<usize>,
    ) -> Vec<(usize, Trouble)> {
        let count = samples.len();
        let rows = Mutex::new(samples.zip(images.chunks_exact_mut(self.input_len)));
        let troubles = Mutex::new(Vec::new());
        let work = || {
            loop {
                let Some((index, row)) = lock(&rows).next() else {
                    break;
                };
                if let Err(trouble) = self.read(index, row) {
                    if matches!(trouble, Trouble::Files(_)) {
                        // Nobody need try the rest.
                        lock(&rows).by_ref().for_each(drop);
                    }
                    lock(&troubles).push((index, trouble));
                }
            }
        };
        pool.in_place_scope(|scope| {
            for _ in 0..count.min(pool.current_num_threads()) {
                scope.spawn(|_| work());
            }
            drop(turn);
        });
        troubles
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a sample, and says which come after it.
    fn read(&self, index: usize, out: &mut [f32]) -> Result<(), Trouble> {
        let ScoreSource { samples, files, .. } = self.from;
        let sample = &samples[index];
        files.want(&mut sample.paths(), self.max_file_bytes);
        {
            // Held meanwhile, so that nobody has read what comes, and it would be begun again.
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
            if self.lost.load(Ordering::Relaxed) {
                // Whoever waits for it comes to see that, too.
                let _ = give_back.send(batch.images);
                continue;
            }
            let images = batch.images.values_mut();
            let filled = batch.rows.len() * self.input_len;
            let answer = match batch.rows.len() {
                0 => InferenceOutput::default(),
                count if self.whole_batches => {
                    images[filled..].fill(0.0);
                    let answer = engine.answer(images, self.batch)?;
                    answer.truncated(count, self.batch)
                }
                count => engine.answer(&images[..filled], count)?,
            };
            // Nobody takes it any more once all is decoded.
            let _ = give_back.send(batch.images);
            let count = batch.rows.len() + batch.failures.len();
            let scores = BatchScores {
                first: batch.first,
                probabilities: spread(&answer.probabilities, &batch.rows, count),
                embeddings: spread(&answer.embeddings, &batch.rows, count),
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

/// Whatever another thread did with it, it holds what it should.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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

//! Writes the features of a frozen backbone while images are decoded and sessions compute.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{Scope, ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::extractor::{Extracted, Extractor};
use super::{ExtractorPool, TrainError, TrainJob, TrainingObserver};
use crate::data::{Batch, BatchLoader, FeatureForm, Features, LoadPlan, SampleSource, SampleView};
use crate::imaging::SampleError;

/// Receives one record of features.
type PushRecord<'a> = dyn FnMut(&[f32]) -> io::Result<()> + 'a;

/// Computes the features of all samples and variants and writes them to a file.
pub(super) struct FeatureWriter<'a> {
    pub job: &'a TrainJob<'a>,
    pub form: &'a FeatureForm,
    pub source: &'a Arc<SampleSource>,
    pub observer: &'a dyn TrainingObserver,
}

impl FeatureWriter<'_> {
    /// Writes all features to `path`; returns false if the run was stopped meanwhile.
    ///
    /// # Errors
    ///
    /// A sample cannot be read, the features cannot be computed, or the file cannot be written.
    pub fn write(&self, path: &Path, engine: FeatureEngine) -> Result<bool, TrainError> {
        let form = self.form;
        let name = engine.name();
        self.observer.note(&format!(
            "computing the features of the frozen backbone once with {name}: {} training samples × \
             {} variants, {} validation samples; {:.1} MB in {}",
            form.training.len(),
            form.symmetries,
            form.validation.len(),
            (form.count() * form.len * size_of::<f32>()) as f64 / 1e6,
            path.display()
        ));
        let start = Instant::now();
        let mut failed = None;
        let mut computing = Vec::new();
        let written = Features::write(path, form, |push| {
            let mut records = Records {
                writer: self,
                push,
                computing: &mut computing,
                done: 0,
            };
            match engine {
                FeatureEngine::Here(extractor) => {
                    self.run_here(extractor, &mut records, &mut failed)
                }
                FeatureEngine::Pool(pool) => self.run_pool(pool, &mut records, &mut failed),
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
        if self.job.stop.load(Ordering::Relaxed) {
            return Ok(false);
        }
        written.map_err(|error| TrainError::Features(error.to_string()))?;
        let seconds = start.elapsed().as_secs_f64();
        self.observer.note(&format!(
            "computed the features in {seconds:.1} s: {:.1} images/s, {:.1} % of the time inside {name}",
            form.count() as f64 / seconds.max(1e-9),
            100.0 * covered(computing).as_secs_f64() / seconds.max(1e-9),
        ));
        Ok(true)
    }

    /// Computes on this thread.
    fn run_here(
        &self,
        mut extractor: Box<dyn Extractor>,
        records: &mut Records,
        failed: &mut Option<SampleError>,
    ) -> io::Result<()> {
        let train = &self.job.config.train;
        self.batches(train.batch_size, self.job.config.data.workers, |batch| {
            let batch = batch.map_err(|error| keep(error, failed))?;
            records.write(extractor.extract(vec![batch]).map_err(io::Error::other)?)
        })
    }

    /// Computes in one thread per extractor. Extractor `i` of `n` gets every `n`-th batch, so the
    /// results can be received in the order of the records.
    fn run_pool(
        &self,
        pool: ExtractorPool,
        records: &mut Records,
        failed: &mut Option<SampleError>,
    ) -> io::Result<()> {
        let (batch_size, piece) = (pool.batch, pool.piece);
        scope(|scope| {
            let workers = pool.extractors.into_iter();
            let mut queue = ExtractorQueue {
                workers: workers
                    .map(|it| ExtractorThread::start(scope, it))
                    .collect(),
                pending: VecDeque::new(),
                next: 0,
            };
            let mut waiting = Vec::new();
            let mut images = 0;
            let result = self.batches(piece, pool.decode_threads, |batch| {
                let batch = batch.map_err(|error| keep(error, failed))?;
                images += batch.indices.len();
                waiting.push(batch);
                // The last piece of a variant may be smaller.
                if images + piece > batch_size {
                    images = 0;
                    queue.submit(std::mem::take(&mut waiting), records)?;
                }
                Ok(())
            });
            let result = result.and_then(|()| {
                if !waiting.is_empty() {
                    queue.submit(waiting, records)?;
                }
                while queue.receive(records)? {}
                Ok(())
            });
            queue.end();
            result
        })
    }

    /// Passes all batches of `size` samples to `take`, in the order of the records.
    fn batches(
        &self,
        size: usize,
        decode_threads: usize,
        mut take: impl FnMut(Result<Batch, SampleError>) -> io::Result<()>,
    ) -> io::Result<()> {
        for (variant, samples) in self.form.groups() {
            let plan = LoadPlan {
                view: SampleView::Symmetry(variant),
                ..LoadPlan::new(samples.chunks(size).map(<[usize]>::to_vec).collect())
            };
            for batch in BatchLoader::batches(self.source, plan, decode_threads) {
                take(batch)?;
                if self.job.stop.load(Ordering::Relaxed) {
                    return Err(io::Error::other("stopped"));
                }
            }
        }
        Ok(())
    }
}

/// Keeps the error of a sample for the caller, and returns it for the file.
fn keep(error: SampleError, failed: &mut Option<SampleError>) -> io::Error {
    let text = error.to_string();
    *failed = Some(error);
    io::Error::other(text)
}

/// What computes the features.
pub(super) enum FeatureEngine {
    /// On the thread of the training, where the device has its queue.
    Here(Box<dyn Extractor>),
    Pool(ExtractorPool),
}

impl FeatureEngine {
    pub fn name(&self) -> String {
        match self {
            Self::Here(extractor) => extractor.name(),
            Self::Pool(pool) => pool.extractors[0].name(),
        }
    }
}

/// The records written so far.
struct Records<'a> {
    writer: &'a FeatureWriter<'a>,
    push: &'a mut PushRecord<'a>,
    computing: &'a mut Vec<Range<Instant>>,
    done: usize,
}

impl Records<'_> {
    fn write(&mut self, extracted: Extracted) -> io::Result<()> {
        let form = self.writer.form;
        let rows = extracted.rows.chunks_exact(form.len);
        self.done += rows.len();
        for row in rows {
            (self.push)(row)?;
        }
        self.computing.push(extracted.computing);
        self.writer.observer.extracted(self.done, form.count());
        Ok(())
    }
}

/// The extractors, each with at most two batches.
struct ExtractorQueue<'scope> {
    workers: Vec<ExtractorThread<'scope>>,
    /// Workers whose results were not received yet, in the order of the batches.
    pending: VecDeque<usize>,
    next: usize,
}

impl ExtractorQueue<'_> {
    /// Hands over a batch; writes the oldest result first if all extractors have two batches.
    fn submit(&mut self, batches: Vec<Batch>, records: &mut Records) -> io::Result<()> {
        if self.pending.len() == 2 * self.workers.len() {
            self.receive(records)?;
        }
        // An error means that the thread has panicked; receiving its result reports that.
        let _ = self.workers[self.next].batches.send(batches);
        self.pending.push_back(self.next);
        self.next = (self.next + 1) % self.workers.len();
        Ok(())
    }

    /// Writes the oldest result; false if there is none.
    fn receive(&mut self, records: &mut Records) -> io::Result<bool> {
        let Some(worker) = self.pending.pop_front() else {
            return Ok(false);
        };
        let result = self.workers[worker].results.recv();
        let result = result.unwrap_or_else(|_| Err("a thread ended unexpectedly".into()));
        records.write(result.map_err(io::Error::other)?)?;
        Ok(true)
    }

    /// Waits for the threads.
    ///
    /// # Panics
    ///
    /// With the panic of a thread.
    fn end(self) {
        for worker in self.workers {
            drop((worker.batches, worker.results));
            if let Err(cause) = worker.thread.join() {
                resume_unwind(cause);
            }
        }
    }
}

struct ExtractorThread<'scope> {
    batches: Sender<Vec<Batch>>,
    results: Receiver<Result<Extracted, String>>,
    thread: ScopedJoinHandle<'scope, ()>,
}

impl<'scope> ExtractorThread<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>, mut extractor: Box<dyn Extractor>) -> Self {
        let (batches, orders) = bounded::<Vec<Batch>>(1);
        let (answers, results) = bounded(1);
        let thread = scope.spawn(move || {
            for batches in orders {
                if answers.send(extractor.extract(batches)).is_err() {
                    return;
                }
            }
        });
        Self {
            batches,
            results,
            thread,
        }
    }
}

/// Returns the time that the union of the intervals covers.
fn covered(mut intervals: Vec<Range<Instant>>) -> Duration {
    intervals.sort_by_key(|interval| interval.start);
    let mut total = Duration::ZERO;
    let mut end = None;
    for interval in intervals {
        let start = end.map_or(interval.start, |end| interval.start.max(end));
        total += interval.end.saturating_duration_since(start);
        end = end.max(Some(interval.end));
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_intervals_are_counted_once() {
        let zero = Instant::now();
        let interval =
            |start, end| zero + Duration::from_millis(start)..zero + Duration::from_millis(end);
        let cases = [
            (vec![], 0),
            (vec![interval(5, 15)], 10),
            (vec![interval(20, 30), interval(0, 10)], 20),
            (vec![interval(0, 10), interval(5, 15), interval(6, 8)], 15),
            (
                vec![interval(0, 10), interval(10, 20), interval(15, 30)],
                30,
            ),
        ];
        for (intervals, milliseconds) in cases {
            assert_eq!(covered(intervals), Duration::from_millis(milliseconds));
        }
    }
}

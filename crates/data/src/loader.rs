//! Loads batches in worker threads while the network computes.

use std::panic;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rand::seq::SliceRandom;

use super::random::{Purpose, generator};
use super::{Augmenter, BatchPosition, SampleSource};
use rgby_imaging::{Augmentation, SampleError};

/// Queue length per worker. Together with the batch in progress, each worker holds at most two
/// batches in memory.
const QUEUED_PER_WORKER: usize = 1;

/// Preprocessed samples with their targets.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[N, C, S, S]`, normalized.
    pub images: Vec<f32>,
    /// `[N, K]`, zeros and ones.
    pub targets: Vec<f32>,
    /// Indices of the samples in the data set, `[N]`.
    pub indices: Vec<usize>,
}

impl Batch {
    /// Splits the batch into at least one batch of at most `size` samples.
    #[must_use]
    pub fn split(self, size: usize) -> Vec<Self> {
        let count = self.indices.len();
        if count <= size {
            return vec![self];
        }
        let (image, row) = (self.images.len() / count, self.targets.len() / count);
        let parts = self.indices.chunks(size).enumerate();
        parts
            .map(|(number, indices)| {
                let start = number * size;
                let end = start + indices.len();
                Self {
                    images: self.images[start * image..end * image].to_vec(),
                    targets: self.targets[start * row..end * row].to_vec(),
                    indices: indices.to_vec(),
                }
            })
            .collect()
    }
}

/// Samples to load, batch by batch, and their augmentation.
#[derive(Debug, Clone, Default)]
pub struct LoadPlan {
    /// Data set indices of each batch. A sample may occur several times.
    pub batches: Vec<Vec<usize>>,
    /// Step of the run for the first batch. Only used by [`SampleView::Augmented`].
    pub first_step: u64,
    pub view: SampleView,
}

/// How the samples of a plan are transformed.
#[derive(Debug, Clone, Copy, Default)]
pub enum SampleView {
    /// Unchanged.
    #[default]
    Plain,
    /// A new random augmentation each time.
    Augmented(Augmenter),
    /// The same symmetry of the square for all samples, 0–7.
    Symmetry(u8),
}

impl SampleView {
    fn augmentation(self, position: BatchPosition, stains: usize) -> Augmentation {
        match self {
            Self::Plain => Augmentation::default(),
            Self::Augmented(augmenter) => augmenter.draw(position, stains),
            Self::Symmetry(dihedral) => Augmentation {
                dihedral,
                ..Augmentation::default()
            },
        }
    }
}

impl From<Option<Augmenter>> for SampleView {
    fn from(augmenter: Option<Augmenter>) -> Self {
        augmenter.map_or(Self::Plain, Self::Augmented)
    }
}

impl LoadPlan {
    /// Returns a plan without augmentation.
    #[must_use]
    pub fn new(batches: Vec<Vec<usize>>) -> Self {
        Self {
            batches,
            ..Self::default()
        }
    }
}

#[derive(Debug)]
struct BatchOrder {
    step: u64,
    indices: Vec<usize>,
}

/// An iterator over batches, with prefetching.
///
/// Batches have the order of the plan and are bit-identical for every number of workers. A batch
/// with an unreadable sample is an `Err` item; the following batches are still loaded. Dropping the
/// loader stops the workers and waits for them.
#[derive(Debug)]
pub struct BatchLoader {
    workers: Vec<LoaderThread>,
    next: usize,
    len: usize,
    waited: Duration,
}

#[derive(Debug)]
struct LoaderThread {
    batches: Receiver<Result<Batch, SampleError>>,
    thread: JoinHandle<()>,
}

impl BatchLoader {
    /// Starts `workers` threads (at least one, at most one per batch) on a plan.
    ///
    /// # Panics
    ///
    /// If the system cannot start a thread. While iterating, if the plan has an index beyond the
    /// data set.
    #[must_use]
    pub fn batches(source: &Arc<SampleSource>, plan: LoadPlan, workers: usize) -> Self {
        let len = plan.batches.len();
        let count = workers.clamp(1, len.max(1));
        let mut orders: Vec<Vec<BatchOrder>> = (0..count).map(|_| Vec::new()).collect();
        for (number, indices) in plan.batches.into_iter().enumerate() {
            let step = plan.first_step + number as u64;
            orders[number % count].push(BatchOrder { step, indices });
        }
        // Each worker has a separate queue and every `count`-th batch. Receiving from the queues in
        // turn yields the order of the plan without sorting.
        let start = |orders: Vec<BatchOrder>| {
            let (sender, batches) = bounded(QUEUED_PER_WORKER);
            let (source, view) = (source.clone(), plan.view);
            let thread = thread::spawn(move || {
                for order in orders {
                    let batch = load_batch(&source, view, order);
                    if sender.send(batch).is_err() {
                        return;
                    }
                }
            });
            LoaderThread { batches, thread }
        };
        Self {
            workers: orders.into_iter().map(start).collect(),
            next: 0,
            len,
            waited: Duration::ZERO,
        }
    }

    /// Returns how long the consumer has waited for batches so far.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Iterator for BatchLoader {
    type Item = Result<Batch, SampleError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.len {
            return None;
        }
        let worker = self.next % self.workers.len();
        let start = Instant::now();
        let received = self.workers[worker].batches.recv();
        self.waited += start.elapsed();
        if let Ok(batch) = received {
            self.next += 1;
            return Some(batch);
        }
        // A worker that ends early has panicked. The panic is resumed here, because a silent end
        // would shorten the epoch.
        self.next = self.len;
        let worker = self.workers.swap_remove(worker);
        if let Err(cause) = worker.thread.join() {
            panic::resume_unwind(cause);
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.len - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for BatchLoader {}

impl Drop for BatchLoader {
    fn drop(&mut self) {
        for LoaderThread { batches, thread } in self.workers.drain(..) {
            // Without a receiver the worker's next send fails and its loop ends.
            drop(batches);
            // A panic is ignored here, because its batch is not needed any more.
            let _ = thread.join();
        }
    }
}

fn load_batch(
    source: &SampleSource,
    view: SampleView,
    BatchOrder { step, indices }: BatchOrder,
) -> Result<Batch, SampleError> {
    let len = source.input_len();
    let dataset = source.dataset();
    let mut images = vec![0.0; indices.len() * len];
    let mut targets = Vec::with_capacity(indices.len() * dataset.num_classes);
    for ((&index, position), image) in indices.iter().zip(0..).zip(images.chunks_exact_mut(len)) {
        let augment = |stains: usize| view.augmentation(BatchPosition { step, position }, stains);
        source.load(index, augment, image)?;
        targets.extend(dataset.target_row(index));
    }
    Ok(Batch {
        images,
        targets,
        indices,
    })
}

/// Returns `indices` in the order of epoch `epoch`: a Fisher–Yates shuffle with `ChaCha8`.
///
/// It depends only on the arguments, so a resumed run needs no saved state.
#[must_use]
pub fn epoch_order(indices: &[usize], seed: u64, epoch: u64) -> Vec<usize> {
    let mut order = indices.to_vec();
    order.shuffle(&mut generator(seed, Purpose::Order, [epoch, 0]));
    order
}

#[cfg(test)]
mod tests;

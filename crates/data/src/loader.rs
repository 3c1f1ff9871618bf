//! Batches decoded by worker threads while the network computes.

use std::panic;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rand::seq::SliceRandom;

use super::random::{Purpose, generator};
use super::{Augment, BatchPosition, SampleSource};
use rgby_imaging::{SampleError, Variation};

/// Finished batches that wait for each worker; with the one being made, two a worker is all the
/// memory that loading takes.
const WAITING_PER_WORKER: usize = 1;

/// Some samples, ready for the network.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Inputs, `[N, C, S, S]`, normalised.
    pub images: Vec<f32>,
    /// Classes, `[N, K]`, zeros and ones.
    pub targets: Vec<f32>,
    /// The samples' places in the data set, `[N]`.
    pub indices: Vec<usize>,
}

impl Batch {
    /// The same samples in batches of `size`, at least one, the last of which may be smaller.
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

/// Which samples to load, batch by batch, and how to show them.
#[derive(Debug, Clone, Default)]
pub struct LoadPlan {
    /// The samples of each batch, by their places in the data set. One sample may come again.
    pub batches: Vec<Vec<usize>>,
    /// The step in the run that takes the first batch; the others follow. It matters to
    /// [`SampleView::Drawn`] only.
    pub first_step: u64,
    /// How to show the samples.
    pub show: SampleView,
}

/// How samples are shown.
#[derive(Debug, Clone, Copy, Default)]
pub enum SampleView {
    /// As they are.
    #[default]
    Plain,
    /// Each time in another way.
    Drawn(Augment),
    /// All in the same one of the square's symmetries, 0–7.
    View(u8),
}

impl SampleView {
    fn variation(self, place: BatchPosition, stains: usize) -> Variation {
        match self {
            Self::Plain => Variation::default(),
            Self::Drawn(augment) => augment.draw(place, stains),
            Self::View(dihedral) => Variation {
                dihedral,
                ..Variation::default()
            },
        }
    }
}

impl From<Option<Augment>> for SampleView {
    fn from(augment: Option<Augment>) -> Self {
        augment.map_or(Self::Plain, Self::Drawn)
    }
}

impl LoadPlan {
    /// These batches, shown as they are.
    #[must_use]
    pub fn new(batches: Vec<Vec<usize>>) -> Self {
        Self {
            batches,
            ..Self::default()
        }
    }
}

/// A batch to be made.
#[derive(Debug)]
struct BatchOrder {
    step: u64,
    indices: Vec<usize>,
}

/// An iterator over batches that are decoded ahead of it.
///
/// Batches come in the order of the plan and are the same, bit by bit, whatever the number of
/// workers. A batch with an unreadable sample is an error in its place; the batches after it
/// still come. Dropping the loader stops the workers and waits for them.
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
    /// Starts `workers` threads (at least one, at most one a batch) on a plan.
    ///
    /// # Panics
    ///
    /// If the system cannot start a thread; while iterating, if the plan names a sample that does
    /// not exist.
    #[must_use]
    pub fn batches(source: &Arc<SampleSource>, plan: LoadPlan, workers: usize) -> Self {
        let len = plan.batches.len();
        let count = workers.clamp(1, len.max(1));
        let mut shares: Vec<Vec<BatchOrder>> = (0..count).map(|_| Vec::new()).collect();
        for (number, indices) in plan.batches.into_iter().enumerate() {
            let step = plan.first_step + number as u64;
            shares[number % count].push(BatchOrder { step, indices });
        }
        // Each worker has a queue of its own and every `count`-th batch, so taking from the
        // queues in turn yields the plan's order without any sorting.
        let start = |share: Vec<BatchOrder>| {
            let (sender, batches) = bounded(WAITING_PER_WORKER);
            let (source, show) = (source.clone(), plan.show);
            let thread = thread::spawn(move || {
                for order in share {
                    let batch = load_batch(&source, show, order);
                    if sender.send(batch).is_err() {
                        return;
                    }
                }
            });
            LoaderThread { batches, thread }
        };
        Self {
            workers: shares.into_iter().map(start).collect(),
            next: 0,
            len,
            waited: Duration::ZERO,
        }
    }

    /// How long whoever takes the batches has waited for them so far.
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
        let at = self.next % self.workers.len();
        let start = Instant::now();
        let received = self.workers[at].batches.recv();
        self.waited += start.elapsed();
        if let Ok(batch) = received {
            self.next += 1;
            return Some(batch);
        }
        // A worker that leaves before its share is done has panicked: pass that on, rather than
        // end the epoch early.
        self.next = self.len;
        let worker = self.workers.swap_remove(at);
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
            // Its panic, if any, concerned a batch that nobody waits for any more.
            let _ = thread.join();
        }
    }
}

fn load_batch(
    source: &SampleSource,
    show: SampleView,
    BatchOrder { step, indices }: BatchOrder,
) -> Result<Batch, SampleError> {
    let len = source.input_len();
    let dataset = source.dataset();
    let mut images = vec![0.0; indices.len() * len];
    let mut targets = Vec::with_capacity(indices.len() * dataset.num_classes);
    for ((&index, position), image) in indices.iter().zip(0..).zip(images.chunks_exact_mut(len)) {
        let vary = |stains: usize| show.variation(BatchPosition { step, position }, stains);
        source.load(index, vary, image)?;
        targets.extend(dataset.target_row(index));
    }
    Ok(Batch {
        images,
        targets,
        indices,
    })
}

/// `indices` in the order in which epoch `epoch` visits them: a Fisher–Yates shuffle by `ChaCha8`.
///
/// It depends on `indices`, `seed` and `epoch` alone, so a resumed run needs no saved state.
#[must_use]
pub fn epoch_order(indices: &[usize], seed: u64, epoch: u64) -> Vec<usize> {
    let mut order = indices.to_vec();
    order.shuffle(&mut generator(seed, Purpose::Order, [epoch, 0]));
    order
}

#[cfg(test)]
mod tests;

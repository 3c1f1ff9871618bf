//! Batches decoded by worker threads while the network computes.

use std::panic;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use rand::seq::SliceRandom;

use super::Dataset;
use super::random::{Purpose, generator};
use crate::imaging::{DecodeLimits, Preprocess, SampleError};

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

/// An iterator over batches that are decoded ahead of it.
///
/// Batches come in the order of the plan and are the same, bit by bit, whatever the number of
/// workers. A batch with an unreadable sample is an error in its place; the batches after it
/// still come. Dropping the loader stops the workers and waits for them.
#[derive(Debug)]
pub struct Loader {
    workers: Vec<Worker>,
    next: usize,
    len: usize,
}

#[derive(Debug)]
struct Worker {
    batches: Receiver<Result<Batch, SampleError>>,
    thread: JoinHandle<()>,
}

impl Loader {
    /// Starts `workers` threads (at least one, at most one a batch) on a plan: the samples of
    /// each batch.
    ///
    /// The data set's samples must have the preprocessing's channels.
    ///
    /// # Panics
    ///
    /// If the system cannot start a thread; while iterating, if the plan names a sample that does
    /// not exist.
    #[must_use]
    pub fn batches(
        dataset: Arc<Dataset>,
        preprocess: Arc<Preprocess>,
        plan: Vec<Vec<usize>>,
        workers: usize,
    ) -> Self {
        let len = plan.len();
        let count = workers.clamp(1, len.max(1));
        let mut parts: Vec<Vec<Vec<usize>>> = vec![Vec::new(); count];
        for (number, indices) in plan.into_iter().enumerate() {
            parts[number % count].push(indices);
        }
        let shared = Arc::new((dataset, preprocess));
        // Each worker has a queue of its own and every `count`-th batch, so taking from the
        // queues in turn yields the plan's order without any sorting.
        let start = |share: Vec<Vec<usize>>| {
            let (sender, batches) = bounded(WAITING_PER_WORKER);
            let shared = shared.clone();
            let thread = thread::spawn(move || work(&shared.0, &shared.1, share, &sender));
            Worker { batches, thread }
        };
        Self {
            workers: parts.into_iter().map(start).collect(),
            next: 0,
            len,
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, SampleError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.len {
            return None;
        }
        let at = self.next % self.workers.len();
        if let Ok(batch) = self.workers[at].batches.recv() {
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

impl ExactSizeIterator for Loader {}

impl Drop for Loader {
    fn drop(&mut self) {
        for Worker { batches, thread } in self.workers.drain(..) {
            // Without a receiver the worker's next send fails and its loop ends.
            drop(batches);
            // Its panic, if any, concerned a batch that nobody waits for any more.
            let _ = thread.join();
        }
    }
}

fn work(
    dataset: &Dataset,
    preprocess: &Preprocess,
    share: Vec<Vec<usize>>,
    sender: &Sender<Result<Batch, SampleError>>,
) {
    for indices in share {
        if sender
            .send(load_batch(dataset, preprocess, indices))
            .is_err()
        {
            return;
        }
    }
}

fn load_batch(
    dataset: &Dataset,
    preprocess: &Preprocess,
    indices: Vec<usize>,
) -> Result<Batch, SampleError> {
    let limits = DecodeLimits::default();
    let len = preprocess.input_len();
    let mut images = vec![0.0; indices.len() * len];
    let mut targets = Vec::with_capacity(indices.len() * dataset.num_classes);
    for (&index, image) in indices.iter().zip(images.chunks_exact_mut(len)) {
        preprocess.load(&dataset.samples[index], &limits, image)?;
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
mod tests {
    use std::fs;
    use std::path::Path;

    use image::{GrayImage, Luma};

    use super::*;
    use crate::imaging::CHANNELS;

    const COUNT: usize = 13;

    fn data(dir: &Path) -> (Arc<Dataset>, Arc<Preprocess>) {
        let mut labels = "Id,Target\n".to_owned();
        for i in 0..COUNT {
            for (c, channel) in CHANNELS.iter().enumerate() {
                let image = GrayImage::from_fn(12, 9, |x, y| {
                    Luma([(i * 19 + c * 50) as u8 ^ (x * y) as u8])
                });
                image
                    .save(dir.join(format!("s{i:02}_{channel}.png")))
                    .unwrap();
            }
            labels = format!("{labels}s{i:02},{}\n", i % 5);
        }
        fs::write(dir.join("labels.csv"), labels).unwrap();
        let preprocess = Preprocess::new(&CHANNELS, 6);
        let labels = dir.join("labels.csv");
        let dataset = Dataset::open(dir, &labels, &preprocess.channels, 5).unwrap();
        (Arc::new(dataset), Arc::new(preprocess))
    }

    fn plan() -> Vec<Vec<usize>> {
        let all: Vec<_> = (0..COUNT).collect();
        epoch_order(&all, 3, 0)
            .chunks(2)
            .map(<[usize]>::to_vec)
            .collect()
    }

    #[test]
    fn batches_are_the_same_for_any_number_of_workers() {
        let dir = tempfile::tempdir().unwrap();
        let (dataset, preprocess) = data(dir.path());
        let load = |workers| {
            let loader = Loader::batches(dataset.clone(), preprocess.clone(), plan(), workers);
            assert_eq!(loader.len(), 7);
            loader.map(Result::unwrap).collect::<Vec<_>>()
        };
        let one = load(1);
        let order: Vec<_> = one.iter().map(|b| b.indices.clone()).collect();
        assert_eq!(order, plan());
        for (batch, indices) in one.iter().zip(plan()) {
            assert_eq!(batch.images.len(), indices.len() * 4 * 36);
            for (row, index) in batch.targets.chunks(5).zip(indices) {
                let wanted: Vec<_> = (0..5)
                    .map(|class| f32::from(u8::from(class == index % 5)))
                    .collect();
                assert_eq!(row.to_vec(), wanted);
            }
        }
        assert_ne!(one[0].images, one[1].images);
        for workers in [0, 2, 8, 64] {
            assert_eq!(one, load(workers), "{workers} workers");
        }
    }

    #[test]
    fn dropping_early_stops_the_workers() {
        let dir = tempfile::tempdir().unwrap();
        let (dataset, preprocess) = data(dir.path());
        for (workers, taken) in [(1, 0), (2, 1), (8, 3)] {
            // A plan far too long to be finished: a drop that waited for it would hang.
            let plan = plan().into_iter().cycle().take(1_000_000).collect();
            let mut loader = Loader::batches(dataset.clone(), preprocess.clone(), plan, workers);
            assert_eq!(loader.by_ref().take(taken).flatten().count(), taken);
            drop(loader);
            assert_eq!(
                Arc::strong_count(&dataset),
                1,
                "a worker outlived its loader"
            );
        }
    }

    #[test]
    fn a_bad_sample_is_an_error_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (dataset, preprocess) = data(dir.path());
        fs::write(dir.path().join("s04_blue.png"), "no image").unwrap();
        let plan: Vec<_> = (0..COUNT).map(|i| vec![i]).collect();
        let results: Vec<_> = Loader::batches(dataset, preprocess, plan, 3).collect();
        assert_eq!(results.len(), COUNT);
        for (i, result) in results.iter().enumerate() {
            assert_eq!(result.is_err(), i == 4);
        }
        let message = results[4].as_ref().unwrap_err().to_string();
        assert!(message.contains("s04_blue.png"), "{message}");
    }

    #[test]
    fn an_empty_plan_yields_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (dataset, preprocess) = data(dir.path());
        assert_eq!(
            Loader::batches(dataset, preprocess, Vec::new(), 4).count(),
            0
        );
    }

    #[test]
    #[should_panic(expected = "index out of bounds")]
    fn a_plan_beyond_the_data_panics_rather_than_ends_early() {
        let dir = tempfile::tempdir().unwrap();
        let (dataset, preprocess) = data(dir.path());
        Loader::batches(dataset, preprocess, vec![vec![0], vec![COUNT]], 2).for_each(drop);
    }

    #[test]
    fn the_order_is_a_permutation_by_seed_and_epoch() {
        let all: Vec<_> = (100..200).collect();
        let order = epoch_order(&all, 1, 2);
        assert_eq!(order, epoch_order(&all, 1, 2));
        assert_ne!(order, epoch_order(&all, 1, 3));
        assert_ne!(order, epoch_order(&all, 2, 2));
        assert_ne!(epoch_order(&all, 1, 2), epoch_order(&all, 2, 1));
        let mut sorted = order;
        sorted.sort_unstable();
        assert_eq!(sorted, all);
    }
}

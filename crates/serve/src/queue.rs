//! The bounded queue between requests and engines, where requests join into batches.
//!
//! **When a batch starts.** At once when it is full. Else a worker waits, for `max_delay` at most,
//! for as many images as are likely to come: those of the last batch and those that were queued
//! when it was done, since whoever waits for an answer sends its next request after it. One client
//! alone is thus never delayed, and sixteen clients find themselves in one batch after two rounds.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::metrics::{ModelMetrics, RequestStage};
use super::{ServeError, Trace};
use rgby_score::InferenceOutput;

/// How requests are joined, and how many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Most images that an engine is given at once; at least 1.
    pub max_batch: usize,
    /// How long a worker without work to do waits for a batch to fill.
    pub max_delay: Duration,
    /// Most images that may wait or be prepared; at least 1.
    pub max_queue: usize,
}

/// One model's queue.
#[derive(Debug)]
pub(super) struct Queue {
    batching: Batching,
    metrics: ModelMetrics,
    state: Mutex<QueueState>,
    wake: Condvar,
}

#[derive(Debug)]
struct QueueState {
    jobs: VecDeque<QueuedRequest>,
    /// Images of `jobs`.
    images: usize,
    /// Images of `jobs`, and of requests that are being prepared.
    taken: usize,
    /// How many images are likely to be there soon.
    expected: usize,
    seconds_per_image: f64,
    closed: bool,
}

/// Images of one request that are computed together.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    values: Arc<Vec<f32>>,
    range: Range<usize>,
    /// Number of images.
    pub(super) count: usize,
    deadline: Instant,
    arrived: Instant,
    reply: oneshot::Sender<Reply>,
    places: QueueSlots,
    /// That of its request.
    trace: Trace,
}

/// What comes back for a job.
pub(super) type Reply = Result<InferenceOutput, ServeError>;

/// Room for a number of images, given back when it is dropped.
#[derive(Debug)]
pub(super) struct QueueSlots {
    queue: Arc<Queue>,
    count: usize,
}

/// A request in the queue. Dropping it takes the request out.
#[derive(Debug)]
pub(super) struct Pending(Vec<oneshot::Receiver<Reply>>);

impl Queue {
    /// An empty one.
    #[must_use]
    pub(super) fn new(batching: Batching, metrics: ModelMetrics) -> Self {
        Self {
            batching,
            metrics,
            state: Mutex::new(QueueState {
                jobs: VecDeque::new(),
                images: 0,
                taken: 0,
                expected: 1,
                seconds_per_image: 0.0,
                closed: false,
            }),
            wake: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // No invariant spans a panic: each change of the state is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes room for `count` images.
    ///
    /// # Errors
    ///
    /// [`ServeError::Overloaded`] if there is none now, [`ServeError::Invalid`] if there never is.
    pub(super) fn reserve(self: &Arc<Self>, count: usize) -> Result<QueueSlots, ServeError> {
        let limit = self.batching.max_queue;
        if count > limit {
            return Err(ServeError::Invalid(format!(
                "a batch of {count} images is larger than the queue, which takes {limit}; send \
                 fewer at a time"
            )));
        }
        let mut state = self.lock();
        if state.taken + count > limit {
            // Some of those that wait may have been given up.
            let dead = state.take_dead();
            drop(state);
            drop(dead);
            state = self.lock();
        }
        if state.taken + count > limit {
            return Err(self.full(&state));
        }
        state.taken += count;
        self.metrics.depth.set(state.taken as i64);
        let queue = self.clone();
        Ok(QueueSlots { queue, count })
    }

    /// Whether a request of one image would be refused: worth knowing before its body is read.
    ///
    /// # Errors
    ///
    /// [`ServeError::Overloaded`] if so.
    pub(super) fn check_room(self: &Arc<Self>) -> Result<(), ServeError> {
        self.reserve(1).map(drop)
    }

    fn full(&self, state: &QueueState) -> ServeError {
        let seconds = (state.taken as f64 * state.seconds_per_image).ceil();
        ServeError::Overloaded {
            what: format!(
                "the queue is full: {} of {} images wait",
                state.taken, self.batching.max_queue
            ),
            retry_after: Duration::from_secs(seconds.clamp(1.0, 60.0) as u64),
        }
    }

    /// Queues the images `[count, …]` that `places` were taken for, in parts of a batch at most.
    pub(super) fn submit(
        &self,
        mut places: QueueSlots,
        values: Vec<f32>,
        deadline: Instant,
        trace: &Trace,
    ) -> Pending {
        let total = places.count;
        let row = values.len() / total.max(1);
        let values = Arc::new(values);
        let arrived = Instant::now();
        let mut pending = Vec::new();
        let mut jobs = Vec::new();
        for first in (0..total).step_by(self.batching.max_batch) {
            let count = self.batching.max_batch.min(total - first);
            let (reply, receiver) = oneshot::channel();
            pending.push(receiver);
            jobs.push(QueuedRequest {
                values: values.clone(),
                range: first * row..(first + count) * row,
                count,
                deadline,
                arrived,
                reply,
                places: places.split(count),
                trace: trace.clone(),
            });
        }
        let mut state = self.lock();
        state.images += total;
        state.jobs.extend(jobs);
        drop(state);
        self.wake.notify_one();
        Pending(pending)
    }

    /// The next batch; waits for one. `None` once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Vec<QueuedRequest>> {
        let idle_since = Instant::now();
        let mut state = self.lock();
        loop {
            let dead = state.take_dead();
            if !dead.is_empty() {
                // Their places are given back under the same lock.
                drop(state);
                drop(dead);
                state = self.lock();
                continue;
            }
            let Some(oldest) = state.jobs.front() else {
                if state.closed {
                    return None;
                }
                let woken = self.wake.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wanted = state.expected.clamp(1, self.batching.max_batch);
            let until = oldest.arrived.max(idle_since) + self.batching.max_delay;
            let left = until.saturating_duration_since(Instant::now());
            if state.images >= wanted || left.is_zero() || state.closed {
                let jobs = state.take(self.batching.max_batch);
                let more = !state.jobs.is_empty();
                drop(state);
                if more {
                    self.wake.notify_one();
                }
                return Some(jobs);
            }
            let woken = self.wake.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes that a batch of `images` was computed in `seconds`.
    pub(super) fn finished(&self, images: usize, seconds: f64) {
        const WEIGHT: f64 = 0.2;
        let mut state = self.lock();
        state.expected = images + state.images;
        let each = seconds / images.max(1) as f64;
        let before = state.seconds_per_image;
        state.seconds_per_image = if before == 0.0 {
            each
        } else {
            before + WEIGHT * (each - before)
        };
    }

    /// Lets workers end once they have done what is queued.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

impl QueueState {
    /// Takes jobs off the front, of `most` images together.
    fn take(&mut self, most: usize) -> Vec<QueuedRequest> {
        let mut room = most;
        let mut jobs = Vec::new();
        while let Some(job) = self.jobs.pop_front_if(|job| job.count <= room) {
            room -= job.count;
            self.images -= job.count;
            jobs.push(job);
        }
        jobs
    }

    /// Takes out the jobs whose clients left or whose time is over.
    fn take_dead(&mut self) -> VecDeque<QueuedRequest> {
        let now = Instant::now();
        if !self.jobs.iter().any(|job| job.is_dead(now)) {
            return VecDeque::new();
        }
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let (dead, alive) = jobs.partition(|job| job.is_dead(now));
        self.jobs = alive;
        self.images -= dead
            .iter()
            .map(|job: &QueuedRequest| job.count)
            .sum::<usize>();
        dead
    }
}

impl QueuedRequest {
    /// Whether nobody waits for it any more.
    fn is_dead(&self, now: Instant) -> bool {
        self.reply.is_closed() || self.deadline <= now
    }

    /// Its images, one after the other.
    pub(super) fn images(&self) -> &[f32] {
        &self.values[self.range.clone()]
    }

    /// Leaves the queue for good, so that others have its room.
    pub(super) fn start(&mut self) {
        self.places.release();
        let waited = self.arrived.elapsed();
        self.places
            .queue
            .metrics
            .observe(RequestStage::Queue, waited);
        let images = [("rgby.images", self.count)];
        self.trace.stage("queue", self.arrived, &images);
    }

    /// Notes that it was computed in a batch of so many images.
    pub(super) fn computed(&self, began: Instant, batch: usize) {
        let images = [("rgby.images", self.count), ("rgby.batch_images", batch)];
        self.trace.stage("infer", began, &images);
    }

    /// Answers it, if the client is still there.
    pub(super) fn answer(self, reply: Reply) {
        // A client that left needs no answer.
        let _ = self.reply.send(reply);
    }
}

impl QueueSlots {
    /// Splits off those for `count` images.
    fn split(&mut self, count: usize) -> Self {
        let count = count.min(self.count);
        self.count -= count;
        let queue = self.queue.clone();
        Self { queue, count }
    }

    fn release(&mut self) {
        if self.count > 0 {
            let mut state = self.queue.lock();
            state.taken -= self.count;
            self.queue.metrics.depth.set(state.taken as i64);
            self.count = 0;
        }
    }
}

impl Drop for QueueSlots {
    fn drop(&mut self) {
        self.release();
    }
}

impl Pending {
    /// Waits for all parts.
    ///
    /// # Errors
    ///
    /// That of the first part that failed.
    pub(super) async fn answer(self) -> Reply {
        let mut whole = InferenceOutput::default();
        for part in self.0 {
            // Dead jobs are dropped unanswered; of those only the late ones are still awaited.
            let part = part.await.unwrap_or(Err(ServeError::Deadline))?;
            if whole.probabilities.is_empty() {
                whole = part;
            } else {
                whole.probabilities.extend(part.probabilities);
                whole.embeddings.extend(part.embeddings);
            }
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests;

//! Bounded queue between requests and sessions, which combines requests into batches.
//!
//! **When a batch starts.** A full batch starts immediately. Otherwise a worker waits, at most
//! `max_delay`, for the expected number of images. This is the size of the last batch plus the
//! images that were queued when it finished, because clients usually send their next request after
//! a response. A single client is therefore never delayed, and sixteen clients share one batch
//! after two rounds.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::metrics::{ModelMetrics, RequestStage};
use super::{ServeError, Trace};
use rgby_score::InferenceOutput;

/// Batching and queue limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Maximum batch size in images; at least 1.
    pub max_batch: usize,
    /// Maximum time that an idle worker waits for a batch to fill.
    pub max_delay: Duration,
    /// Maximum number of images that are queued or being prepared; at least 1.
    pub max_queue: usize,
}

/// The queue of one model.
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
    /// Number of images in `jobs`.
    images: usize,
    /// Number of images in `jobs` and in requests that are being prepared.
    reserved: usize,
    /// Expected number of images in the next batch.
    expected: usize,
    seconds_per_image: f64,
    closed: bool,
}

/// A request, or a part of a large one, that runs in a single batch.
#[derive(Debug)]
pub(super) struct QueuedRequest {
    /// Values of all images of the request.
    values: Arc<Vec<f32>>,
    /// The part of `values` that belongs to this job.
    range: Range<usize>,
    /// Number of images.
    pub(super) count: usize,
    deadline: Instant,
    arrived: Instant,
    sender: oneshot::Sender<InferenceResult>,
    slots: QueueSlots,
    trace: Trace,
}

/// Result of a job.
pub(super) type InferenceResult = Result<InferenceOutput, ServeError>;

/// Reserved slots in the queue for a number of images; dropping them frees the slots.
#[derive(Debug)]
pub(super) struct QueueSlots {
    queue: Arc<Queue>,
    count: usize,
}

/// The result of a queued request, not yet available. Dropping it cancels the request.
#[derive(Debug)]
pub(super) struct PendingResponse(Vec<oneshot::Receiver<InferenceResult>>);

impl Queue {
    #[must_use]
    pub(super) fn new(batching: Batching, metrics: ModelMetrics) -> Self {
        Self {
            batching,
            metrics,
            state: Mutex::new(QueueState {
                jobs: VecDeque::new(),
                images: 0,
                reserved: 0,
                expected: 1,
                seconds_per_image: 0.0,
                closed: false,
            }),
            wake: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // A poisoned lock is usable, because no invariant is broken while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves slots for `count` images.
    ///
    /// # Errors
    ///
    /// [`ServeError::Overloaded`] if the queue is full, [`ServeError::Invalid`] if `count` exceeds
    /// the queue's size.
    pub(super) fn reserve(self: &Arc<Self>, count: usize) -> Result<QueueSlots, ServeError> {
        let limit = self.batching.max_queue;
        if count > limit {
            return Err(ServeError::Invalid(format!(
                "the request has {count} images, which is larger than the queue of {limit}; send \
                 fewer images per request"
            )));
        }
        let mut state = self.lock();
        if state.reserved + count > limit {
            // Cancelled and late jobs may free enough slots.
            let expired = state.take_expired();
            drop(state);
            drop(expired);
            state = self.lock();
        }
        if state.reserved + count > limit {
            return Err(self.full(&state));
        }
        state.reserved += count;
        self.metrics.depth.set(state.reserved as i64);
        let queue = self.clone();
        Ok(QueueSlots { queue, count })
    }

    /// Checks that a request of one image would be accepted, before its body is read.
    ///
    /// # Errors
    ///
    /// [`ServeError::Overloaded`] if the queue is full.
    pub(super) fn check_room(self: &Arc<Self>) -> Result<(), ServeError> {
        self.reserve(1).map(drop)
    }

    fn full(&self, state: &QueueState) -> ServeError {
        let seconds = (state.reserved as f64 * state.seconds_per_image).ceil();
        ServeError::Overloaded {
            what: format!(
                "the queue is full: {} of {} images",
                state.reserved, self.batching.max_queue
            ),
            retry_after: Duration::from_secs(seconds.clamp(1.0, 60.0) as u64),
        }
    }

    /// Queues the images `[count, …]` of the reserved `slots`, split into jobs of at most one
    /// batch.
    pub(super) fn submit(
        &self,
        mut slots: QueueSlots,
        values: Vec<f32>,
        deadline: Instant,
        trace: &Trace,
    ) -> PendingResponse {
        let total = slots.count;
        let row = values.len() / total.max(1);
        let values = Arc::new(values);
        let arrived = Instant::now();
        let mut receivers = Vec::new();
        let mut jobs = Vec::new();
        for first in (0..total).step_by(self.batching.max_batch) {
            let count = self.batching.max_batch.min(total - first);
            let (sender, receiver) = oneshot::channel();
            receivers.push(receiver);
            jobs.push(QueuedRequest {
                values: values.clone(),
                range: first * row..(first + count) * row,
                count,
                deadline,
                arrived,
                sender,
                slots: slots.split(count),
                trace: trace.clone(),
            });
        }
        let mut state = self.lock();
        state.images += total;
        state.jobs.extend(jobs);
        drop(state);
        self.wake.notify_one();
        PendingResponse(receivers)
    }

    /// Waits for the next batch. Returns `None` once the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Vec<QueuedRequest>> {
        let idle_since = Instant::now();
        let mut state = self.lock();
        loop {
            let expired = state.take_expired();
            if !expired.is_empty() {
                // Dropping the jobs frees their slots, which needs the same lock.
                drop(state);
                drop(expired);
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
            let expected = state.expected.clamp(1, self.batching.max_batch);
            let until = oldest.arrived.max(idle_since) + self.batching.max_delay;
            let left = until.saturating_duration_since(Instant::now());
            if state.images >= expected || left.is_zero() || state.closed {
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

    /// Records the size and duration of a finished batch.
    pub(super) fn batch_finished(&self, images: usize, seconds: f64) {
        const WEIGHT: f64 = 0.2;
        let mut state = self.lock();
        state.expected = images + state.images;
        let per_image = seconds / images.max(1) as f64;
        let average = state.seconds_per_image;
        state.seconds_per_image = if average == 0.0 {
            per_image
        } else {
            average + WEIGHT * (per_image - average)
        };
    }

    /// Closes the queue. Workers end after the jobs that are still queued.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

impl QueueState {
    /// Removes jobs from the front, with at most `max_images` in total.
    fn take(&mut self, max_images: usize) -> Vec<QueuedRequest> {
        let mut room = max_images;
        let mut jobs = Vec::new();
        while let Some(job) = self.jobs.pop_front_if(|job| job.count <= room) {
            room -= job.count;
            self.images -= job.count;
            jobs.push(job);
        }
        jobs
    }

    /// Removes the jobs whose client has disconnected or whose deadline has passed.
    fn take_expired(&mut self) -> VecDeque<QueuedRequest> {
        let now = Instant::now();
        if !self.jobs.iter().any(|job| job.is_expired(now)) {
            return VecDeque::new();
        }
        let jobs = std::mem::take(&mut self.jobs).into_iter();
        let (expired, remaining) = jobs.partition(|job| job.is_expired(now));
        self.jobs = remaining;
        self.images -= expired
            .iter()
            .map(|job: &QueuedRequest| job.count)
            .sum::<usize>();
        expired
    }
}

impl QueuedRequest {
    /// Returns whether the result is no longer needed.
    fn is_expired(&self, now: Instant) -> bool {
        self.sender.is_closed() || self.deadline <= now
    }

    /// Returns the values of the job's images, `[count, …]`.
    pub(super) fn images(&self) -> &[f32] {
        &self.values[self.range.clone()]
    }

    /// Frees the job's slots in the queue and records its waiting time.
    pub(super) fn start(&mut self) {
        self.slots.release();
        let waited = self.arrived.elapsed();
        self.slots
            .queue
            .metrics
            .observe(RequestStage::Queue, waited);
        let images = [("rgby.images", self.count)];
        self.trace.stage("queue", self.arrived, &images);
    }

    /// Records that the job ran in a batch of `batch` images.
    pub(super) fn trace_inference(&self, start: Instant, batch: usize) {
        let images = [("rgby.images", self.count), ("rgby.batch_images", batch)];
        self.trace.stage("infer", start, &images);
    }

    /// Sends the result to the waiting request.
    pub(super) fn finish(self, result: InferenceResult) {
        // An error means that the client has disconnected.
        let _ = self.sender.send(result);
    }
}

impl QueueSlots {
    /// Splits off the slots of `count` images.
    fn split(&mut self, count: usize) -> Self {
        let count = count.min(self.count);
        self.count -= count;
        let queue = self.queue.clone();
        Self { queue, count }
    }

    fn release(&mut self) {
        if self.count > 0 {
            let mut state = self.queue.lock();
            state.reserved -= self.count;
            self.queue.metrics.depth.set(state.reserved as i64);
            self.count = 0;
        }
    }
}

impl Drop for QueueSlots {
    fn drop(&mut self) {
        self.release();
    }
}

impl PendingResponse {
    /// Waits for all jobs of the request and joins their outputs.
    ///
    /// # Errors
    ///
    /// The error of the first failed job.
    pub(super) async fn output(self) -> InferenceResult {
        let mut output = InferenceOutput::default();
        for receiver in self.0 {
            // Expired jobs drop their sender; the request still waits only if its deadline passed.
            let part = receiver.await.unwrap_or(Err(ServeError::Deadline))?;
            if output.probabilities.is_empty() {
                output = part;
            } else {
                output.probabilities.extend(part.probabilities);
                output.embeddings.extend(part.embeddings);
            }
        }
        Ok(output)
    }
}

#[cfg(test)]
mod tests;

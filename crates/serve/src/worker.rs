//! A worker thread: owns a session and runs it on the batches of its model's queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::metrics::{ModelMetrics, RequestStage};
use super::queue::{Queue, QueuedRequest};
use super::{ServeError, one_line};
use rgby_score::{Engine, EngineError, InferenceOutput};

/// A session and its source of batches.
pub(super) struct InferenceWorker {
    pub(super) engine: Box<dyn Engine>,
    pub(super) queue: Arc<Queue>,
    pub(super) metrics: ModelMetrics,
    /// Batch sizes to pad to, if each new size is slow once; `None` accepts any size.
    pub(super) batch_sizes: Option<Vec<usize>>,
}

/// Returns the batch sizes of the warm-up: powers of two, and `max_batch`.
pub(super) fn warm_up_sizes(max_batch: usize) -> Vec<usize> {
    let powers = (0..).map(|power| 1_usize << power);
    let mut sizes: Vec<usize> = powers.take_while(|size| *size < max_batch).collect();
    sizes.push(max_batch);
    sizes
}

/// Runs the session once with each warm-up size, so that no request is delayed by initialization.
///
/// # Errors
///
/// The session fails, or its outputs on black images are not probabilities.
pub(super) fn warm_up(engine: &mut dyn Engine, max_batch: usize) -> Result<(), EngineError> {
    let row = engine.spec().preprocess.input_len();
    let images = vec![0.0; max_batch * row];
    // The largest size first, so that the smaller ones reuse its memory.
    for size in warm_up_sizes(max_batch).into_iter().rev() {
        engine.run(&images[..size * row], size)?;
    }
    Ok(())
}

impl InferenceWorker {
    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut buffer = Vec::new();
        while let Some(mut jobs) = self.queue.next() {
            jobs.iter_mut().for_each(QueuedRequest::start);
            let images: usize = jobs.iter().map(|job| job.count).sum();
            self.metrics.batch.observe(images as f64);
            let start = Instant::now();
            let result = self.compute(&jobs, &mut buffer);
            let elapsed = start.elapsed();
            self.metrics.observe(RequestStage::Infer, elapsed);
            self.queue.batch_finished(images, elapsed.as_secs_f64());
            for job in &jobs {
                job.trace_inference(start, images);
            }
            match result {
                Ok(output) => distribute(jobs, &output),
                Err(error) if jobs.len() == 1 => Self::fail(jobs, &error),
                // Run each job alone, so that only those that cause the error fail.
                Err(_) => jobs
                    .into_iter()
                    .for_each(|job| self.run_alone(job, &mut buffer)),
            }
        }
    }

    fn run_alone(&mut self, job: QueuedRequest, buffer: &mut Vec<f32>) {
        let start = Instant::now();
        let jobs = vec![job];
        let result = self.compute(&jobs, buffer);
        for job in &jobs {
            job.trace_inference(start, job.count);
        }
        match result {
            Ok(output) => distribute(jobs, &output),
            Err(error) => Self::fail(jobs, &error),
        }
    }

    fn fail(jobs: Vec<QueuedRequest>, reason: &str) {
        tracing::error!(reason, "the session failed on a batch");
        for job in jobs {
            // The reason may contain paths of this machine, which clients must not see.
            let message = "inference failed on these images; see the server's log";
            job.finish(Err(ServeError::Failed(message.into())));
        }
    }

    /// Runs the session on the images of all jobs.
    fn compute(
        &mut self,
        jobs: &[QueuedRequest],
        buffer: &mut Vec<f32>,
    ) -> Result<InferenceOutput, String> {
        let images: usize = jobs.iter().map(|job| job.count).sum();
        let size = self.padded(images);
        let values = if let ([job], true) = (jobs, size == images) {
            job.images()
        } else {
            buffer.clear();
            for job in jobs {
                buffer.extend_from_slice(job.images());
            }
            buffer.resize(buffer.len() / images * size, 0.0);
            buffer
        };
        let engine = &mut self.engine;
        // Without the worker, nothing would process the queue, so panics are caught.
        match catch_unwind(AssertUnwindSafe(|| engine.infer(values, size))) {
            Ok(output) => {
                let output = output.map_err(|error| one_line(&error))?;
                Ok(output.rows(0..images, size))
            }
            Err(_) => Err("the session panicked".into()),
        }
    }

    /// Returns the batch size to run for a number of images.
    fn padded(&self, images: usize) -> usize {
        let sizes = self.batch_sizes.iter().flatten();
        let fits = sizes.copied().find(|size| *size >= images);
        fits.unwrap_or(images)
    }
}

/// Sends each job its rows of the output.
fn distribute(jobs: Vec<QueuedRequest>, output: &InferenceOutput) {
    let images = jobs.iter().map(|job| job.count).sum();
    let mut first = 0;
    for job in jobs {
        let rows = first..first + job.count;
        first = rows.end;
        job.finish(Ok(output.rows(rows, images)));
    }
}

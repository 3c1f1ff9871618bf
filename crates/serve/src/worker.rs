//! A thread that owns an engine and computes batches of its model's queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::ServeError;
use super::metrics::{ModelMetrics, RequestStage};
use super::queue::{Queue, QueuedRequest};
use rgby_score::{Engine, EngineError, InferenceOutput};

/// An engine and what it takes to feed it.
pub(super) struct InferenceWorker {
    pub(super) engine: Box<dyn Engine>,
    pub(super) queue: Arc<Queue>,
    pub(super) metrics: ModelMetrics,
    /// The sizes of batches that the engine is given, if it pays for each new one; else any.
    pub(super) buckets: Option<Vec<usize>>,
}

/// The sizes of batches that a model is warmed up with: powers of two, and `max_batch`.
pub(super) fn buckets(max_batch: usize) -> Vec<usize> {
    let powers = (0..).map(|power| 1_usize << power);
    let mut sizes: Vec<usize> = powers.take_while(|size| *size < max_batch).collect();
    sizes.push(max_batch);
    sizes
}

/// Runs the engine once for each of those sizes, so that no request pays for what is done once.
///
/// # Errors
///
/// The engine fails, or answers black images with something that is no probability.
pub(super) fn warm_up(engine: &mut dyn Engine, max_batch: usize) -> Result<(), EngineError> {
    let row = engine.spec().preprocess.input_len();
    let images = vec![0.0; max_batch * row];
    // The largest first: what it allocates serves the others.
    for size in buckets(max_batch).into_iter().rev() {
        engine.run(&images[..size * row], size)?;
    }
    Ok(())
}

impl InferenceWorker {
    /// Computes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let mut buffer = Vec::new();
        while let Some(mut jobs) = self.queue.next() {
            jobs.iter_mut().for_each(QueuedRequest::start);
            let images: usize = jobs.iter().map(|job| job.count).sum();
            self.metrics.batch.observe(images as f64);
            let start = Instant::now();
            let answer = self.compute(&jobs, &mut buffer);
            let elapsed = start.elapsed();
            self.metrics.observe(RequestStage::Infer, elapsed);
            self.queue.finished(images, elapsed.as_secs_f64());
            for job in &jobs {
                job.computed(start, images);
            }
            match answer {
                Ok(answer) => share_out(jobs, &answer),
                Err(error) if jobs.len() == 1 => Self::fail(jobs, &error),
                // Whose fault it was shows when each is on its own.
                Err(_) => jobs
                    .into_iter()
                    .for_each(|job| self.alone(job, &mut buffer)),
            }
        }
    }

    fn alone(&mut self, job: QueuedRequest, buffer: &mut Vec<f32>) {
        let start = Instant::now();
        let jobs = vec![job];
        let answer = self.compute(&jobs, buffer);
        for job in &jobs {
            job.computed(start, job.count);
        }
        match answer {
            Ok(answer) => share_out(jobs, &answer),
            Err(error) => Self::fail(jobs, &error),
        }
    }

    fn fail(jobs: Vec<QueuedRequest>, reason: &str) {
        tracing::error!(reason, "the engine failed on a batch");
        for job in jobs {
            // The reason holds paths of this machine, which are none of the client's business.
            let message = "the engine failed on these images; the server's log says why";
            job.answer(Err(ServeError::Failed(message.into())));
        }
    }

    /// The engine's answer to the images of all jobs, one after the other.
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
        // A worker that ended would leave its queue without anybody to serve it.
        match catch_unwind(AssertUnwindSafe(|| engine.answer(values, size))) {
            Ok(answer) => {
                let answer = answer.map_err(|error| error.to_string())?;
                Ok(answer.rows(0..images, size))
            }
            Err(_) => Err("the engine panicked".into()),
        }
    }

    /// The size of the batch that the engine is given for so many images.
    fn padded(&self, images: usize) -> usize {
        let sizes = self.buckets.iter().flatten();
        let fits = sizes.copied().find(|size| *size >= images);
        fits.unwrap_or(images)
    }
}

/// Gives each job its rows.
fn share_out(jobs: Vec<QueuedRequest>, answer: &InferenceOutput) {
    let images = jobs.iter().map(|job| job.count).sum();
    let mut first = 0;
    for job in jobs {
        let rows = first..first + job.count;
        first = rows.end;
        job.answer(Ok(answer.rows(rows, images)));
    }
}

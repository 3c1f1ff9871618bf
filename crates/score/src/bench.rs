//! Benchmark of scoring: sessions alone, preprocessing alone, and both together.

mod preprocess;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use serde::Serialize;

use super::{Buffer, Engine, EngineError, PipelineOptions, ScoreError, ScoreSource, score_batches};
use crate::model_metadata::Precision;
use rgby_common::memory;
use rgby_imaging::{LocalFiles, PreprocessorSet, Sample, SampleError};

pub use preprocess::PreprocessSpeed;
use preprocess::prepare_for;

/// Minimum number of runs per session, however long they take. Percentiles need that many.
const MIN_RUNS: usize = 5;

/// A benchmark failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Score(#[from] ScoreError),
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A sample failed to score.
    #[error("sample {id}: {error}\nhint: remove samples that cannot be read")]
    Failed { id: String, error: String },
}

/// Speed of reading, decoding, resizing and normalizing alone.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PrepareSpeed {
    /// On all decode threads together.
    pub images_per_s: f64,
    /// Time of one core per image.
    pub core_ms_per_image: f64,
}

/// Speed of the sessions alone, on a reused batch.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SessionSpeed {
    /// Of all sessions together.
    pub images_per_s: f64,
    /// Median duration of a batch.
    pub p50_ms: f64,
    /// 95th percentile of the duration of a batch.
    pub p95_ms: f64,
    /// 99th percentile of the duration of a batch.
    pub p99_ms: f64,
    /// CPU time of all threads per image.
    pub cpu_ms_per_image: f64,
}

/// Speed from files to probabilities, as in `rgby score`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EndToEndSpeed {
    /// From the first file to the last probability.
    pub images_per_s: f64,
    /// CPU time of all threads per image.
    pub cpu_ms_per_image: f64,
    /// Peak memory of the process, including the model. Available on Linux only.
    pub peak_rss_mb: Option<f64>,
}

/// Result for one batch size.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BatchSpeed {
    pub batch: usize,
    pub session: SessionSpeed,
    pub end_to_end: EndToEndSpeed,
    /// Upper bound from both costs. On shared cores, the inverse of the sum of the seconds per
    /// image in the sessions and in preprocessing on all cores. With a GPU, the lower of the two
    /// speeds.
    pub allowed_images_per_s: f64,
}

/// Result of a [`ScoreBench`].
#[derive(Debug, Clone, Serialize)]
pub struct ScoreSpeed {
    pub prepare: PrepareSpeed,
    pub batches: Vec<BatchSpeed>,
}

/// Result of a [`ScoreBench`], with the model and the engine.
#[derive(Debug, Clone, Serialize)]
pub struct ModelSpeed {
    /// The model file.
    pub model: PathBuf,
    pub precision: Precision,
    /// Engine and device, for example `tract 0.23.9 on cpu`.
    pub engine: String,
    #[serde(flatten)]
    pub speed: ScoreSpeed,
}

/// A benchmark of scoring.
#[derive(Debug)]
pub struct ScoreBench<'a> {
    /// At least one sample; they are reused.
    pub samples: &'a [Sample],
    /// Batch sizes, each at least 1.
    pub batches: &'a [usize],
    /// Options of the pipeline, except for the batch size.
    pub options: &'a PipelineOptions,
    /// Number of rounds. Each round measures all parts in turn, so that a change of the machine's
    /// speed affects all of them.
    pub rounds: usize,
    /// Duration of each part in a round.
    pub time: Duration,
    /// Whether sessions and preprocessing run on the same cores.
    pub shared_cores: bool,
}

/// Sums over all rounds.
#[derive(Default)]
struct BenchTally {
    images: usize,
    wall: Duration,
    cpu: Duration,
    runs: Vec<Duration>,
    peak: Option<usize>,
}

impl BenchTally {
    fn images_per_s(&self) -> f64 {
        self.images as f64 / self.wall.as_secs_f64()
    }

    fn cpu_ms_per_image(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.images as f64
    }

    /// Adds the time and the number of images of `work`.
    fn time<E>(&mut self, work: impl FnOnce() -> Result<usize, E>) -> Result<(), E> {
        let (start, cpu) = (Instant::now(), ProcessTime::now());
        self.images += work()?;
        self.wall += start.elapsed();
        self.cpu += cpu.elapsed();
        Ok(())
    }
}

impl ScoreBench<'_> {
    /// Returns the number of measurements, each of which calls `progress` once.
    #[must_use]
    pub fn measurements(&self) -> usize {
        self.rounds * (1 + 2 * self.batches.len())
    }

    /// Measures `engines`, which are copies of one model. `progress` is called before each
    /// measurement.
    ///
    /// # Errors
    ///
    /// An engine fails or a sample cannot be read.
    pub fn measure(
        &self,
        engines: &mut [Box<dyn Engine>],
        progress: &dyn Fn(),
    ) -> Result<ScoreSpeed, BenchError> {
        let inputs = engines.first().ok_or(ScoreError::NoEngine)?.inputs();
        let preparers = PreprocessorSet::new(&inputs);
        let mut prepare = BenchTally::default();
        let tallies =
            || -> Vec<BenchTally> { self.batches.iter().map(|_| BenchTally::default()).collect() };
        let (mut sessions, mut pipelines) = (tallies(), tallies());
        for batch in self.batches {
            // The first run at a batch size allocates memory.
            let inputs = allocate_inputs(engines, *batch * preparers.input_len())?;
            run_sessions(engines, &inputs, *batch, Duration::ZERO)?;
        }
        for _ in 0..self.rounds {
            progress();
            let threads = self.options.decode_threads;
            prepare.time(|| prepare_for(self.time, self.samples, &preparers, threads))?;
            for (at, batch) in self.batches.iter().enumerate() {
                progress();
                let session = &mut sessions[at];
                let inputs = allocate_inputs(engines, *batch * preparers.input_len())?;
                let mut runs = Vec::new();
                session.time(|| {
                    runs = run_sessions(engines, &inputs, *batch, self.time)?;
                    Ok::<_, BenchError>(runs.len() * batch)
                })?;
                session.runs.extend(runs);
                progress();
                let count = session.images_per_s() * self.time.as_secs_f64();
                self.end_to_end(engines, *batch, count as usize, &mut pipelines[at])?;
            }
        }
        let prepare = PrepareSpeed {
            images_per_s: prepare.images_per_s(),
            core_ms_per_image: prepare.cpu_ms_per_image(),
        };
        let tallies = sessions.into_iter().zip(pipelines);
        let batches = self.batches.iter().zip(tallies);
        Ok(ScoreSpeed {
            prepare,
            batches: batches
                .map(|(batch, (session, pipeline))| self.speed(*batch, session, &pipeline, prepare))
                .collect(),
        })
    }

    /// Scores about `count` images in batches of `batch`.
    fn end_to_end(
        &self,
        engines: &mut [Box<dyn Engine>],
        batch: usize,
        count: usize,
        tally: &mut BenchTally,
    ) -> Result<(), BenchError> {
        let count = count.div_ceil(batch).max(MIN_RUNS) * batch;
        let samples: Vec<Sample> = self.samples.iter().cycle().take(count).cloned().collect();
        let options = PipelineOptions {
            batch,
            ..self.options.clone()
        };
        let mut failure = None;
        // If this fails, the peak is that of the whole process.
        let _ = memory::reset_peak();
        let source = ScoreSource {
            samples: &samples,
            files: &LocalFiles,
            stop: &AtomicBool::new(false),
        };
        tally.time(|| {
            score_batches(engines, source, &options, &mut |scores| {
                failure = failure.take().or(scores.failures.into_iter().next());
                Ok(())
            })
        })?;
        tally.peak = tally.peak.max(memory::peak());
        failure.map_or(Ok(()), |failure| {
            Err(BenchError::Failed {
                id: failure.id,
                error: format!("{} {}", failure.file, failure.error),
            })
        })
    }

    fn speed(
        &self,
        batch: usize,
        mut session: BenchTally,
        pipeline: &BenchTally,
        prepare: PrepareSpeed,
    ) -> BatchSpeed {
        session.runs.sort_unstable();
        let session = SessionSpeed {
            images_per_s: session.images_per_s(),
            p50_ms: percentile_ms(&session.runs, 50),
            p95_ms: percentile_ms(&session.runs, 95),
            p99_ms: percentile_ms(&session.runs, 99),
            cpu_ms_per_image: session.cpu_ms_per_image(),
        };
        let cores = thread::available_parallelism().map_or(1, usize::from) as f64;
        let seconds = 1.0 / session.images_per_s + prepare.core_ms_per_image / 1e3 / cores;
        let allowed_images_per_s = if self.shared_cores {
            1.0 / seconds
        } else {
            session.images_per_s.min(prepare.images_per_s)
        };
        BatchSpeed {
            batch,
            session,
            end_to_end: EndToEndSpeed {
                images_per_s: pipeline.images_per_s(),
                cpu_ms_per_image: pipeline.cpu_ms_per_image(),
                peak_rss_mb: pipeline.peak.map(|bytes| bytes as f64 / 1e6),
            },
            allowed_images_per_s,
        }
    }
}

/// Allocates an input of `len` values for each engine.
fn allocate_inputs(engines: &[Box<dyn Engine>], len: usize) -> Result<Vec<Buffer>, EngineError> {
    let inputs = engines.iter().map(|engine| {
        let mut input = engine.buffer(len)?;
        input.values_mut().fill(0.1);
        Ok(input)
    });
    inputs.collect()
}

/// Runs all engines in parallel for `time`; returns the duration of each run.
fn run_sessions(
    engines: &mut [Box<dyn Engine>],
    inputs: &[Buffer],
    batch: usize,
    time: Duration,
) -> Result<Vec<Duration>, BenchError> {
    let start = Instant::now();
    let work = |engine: &mut Box<dyn Engine>, images: &[f32]| {
        let mut runs = Vec::new();
        while runs.len() < MIN_RUNS || start.elapsed() < time {
            let run = Instant::now();
            engine.run(images, batch)?;
            runs.push(run.elapsed());
        }
        Ok::<_, EngineError>(runs)
    };
    thread::scope(|scope| {
        // `Buffer` is not `Sync`; its values are.
        let inputs: Vec<&[f32]> = inputs.iter().map(Buffer::values).collect();
        let pairs = engines.iter_mut().zip(inputs);
        let threads: Vec<_> = pairs
            .map(|(engine, images)| scope.spawn(move || work(engine, images)))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(join(thread)?);
        }
        Ok(all)
    })
}

/// Joins a thread and propagates its panic.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    let result = thread.join();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Returns the nearest-rank percentile of sorted durations, in milliseconds.
fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted
        .get(rank - 1)
        .map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let times: Vec<Duration> = (1..=20).map(Duration::from_millis).collect();
        let rank = |times: &[Duration], percent| percentile_ms(times, percent).round() as i32;
        assert_eq!(
            [50, 95, 99].map(|percent| rank(&times, percent)),
            [10, 19, 20]
        );
        assert_eq!(rank(&times[..1], 50), 1);
    }
}

//! How fast a model scores: its sessions alone, preparing images alone, both together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use serde::Serialize;

use super::{Buffer, Engine, EngineError, PipelineOptions, ScoreError, ScoreSource, score_to};
use rgby_common::memory;
use rgby_imaging::{DecodeLimits, LocalFiles, PreprocessorSet, Sample, SampleError};

/// Runs of a session at least, however long they take: a percentile of fewer means nothing.
const LEAST_RUNS: usize = 5;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The pipeline failed.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// A sample cannot be read.
    #[error(transparent)]
    Sample(#[from] SampleError),
    /// A sample failed while it was scored.
    #[error("{id}: {error}; only samples that can be read are measured")]
    Failed {
        /// The sample.
        id: String,
        /// What is wrong with it.
        error: String,
    },
}

/// Reading, decoding, resizing and normalising alone.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct PrepareSpeed {
    /// On all decoding threads together.
    pub images_per_s: f64,
    /// Time of one core that an image takes.
    pub core_ms_per_image: f64,
}

/// The sessions alone, on a batch that is always there.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SessionSpeed {
    /// All sessions together.
    pub images_per_s: f64,
    /// Median time of a batch.
    pub p50_ms: f64,
    /// 95th percentile of that.
    pub p95_ms: f64,
    /// 99th percentile of that.
    pub p99_ms: f64,
    /// Processor time of all threads that an image takes.
    pub cpu_ms_per_image: f64,
}

/// From files to probabilities, as `rgby score` does it.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EndToEndSpeed {
    /// From the first file to the last probability.
    pub images_per_s: f64,
    /// Processor time of all threads that an image takes.
    pub cpu_ms_per_image: f64,
    /// The most memory that the process had meanwhile, the model included; only Linux tells.
    pub peak_rss_mb: Option<f64>,
}

/// One batch size.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct BatchSpeed {
    /// Images that the model is given at once.
    pub batch: usize,
    /// The sessions alone.
    pub session: SessionSpeed,
    /// The whole.
    pub end_to_end: EndToEndSpeed,
    /// What both costs allow. On shared cores: one over the sum of the seconds that an image takes
    /// in the sessions, and in preparation on all cores. With a GPU: the slower of the two.
    pub allowed_images_per_s: f64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct ScoreSpeed {
    /// Preparing images alone.
    pub prepare: PrepareSpeed,
    /// Each batch size.
    pub batches: Vec<BatchSpeed>,
}

/// What is measured, and how long.
#[derive(Debug)]
pub struct ScoreBench<'a> {
    /// Images; they are used again and again.
    pub samples: &'a [Sample],
    /// Batch sizes, each at least 1.
    pub batches: &'a [usize],
    /// How the pipeline works, but for the batch.
    pub options: &'a PipelineOptions,
    /// Each part is measured as often as this, in turns with the others, so that a machine that
    /// changes its pace does not tell them apart.
    pub rounds: usize,
    /// How long each part takes in a round.
    pub time: Duration,
    /// Whether the sessions run on the cores that prepare images.
    pub shared_cores: bool,
}

/// What came together over the rounds.
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

    /// Counts the time and the images of some work.
    fn time<E>(&mut self, work: impl FnOnce() -> Result<usize, E>) -> Result<(), E> {
        let (start, cpu) = (Instant::now(), ProcessTime::now());
        self.images += work()?;
        self.wall += start.elapsed();
        self.cpu += cpu.elapsed();
        Ok(())
    }
}

impl ScoreBench<'_> {
    /// Measures `engines` (copies of one model). `progress` is called before each part of a round.
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
        let (mut sessions, mut wholes) = (tallies(), tallies());
        for batch in self.batches {
            // The first run at a size allocates.
            let inputs = inputs_of(engines, *batch * preparers.input_len())?;
            run_sessions(engines, &inputs, *batch, Duration::ZERO)?;
        }
        for _ in 0..self.rounds {
            progress();
            let threads = self.options.decode_threads;
            prepare.time(|| prepare_for(self.time, self.samples, &preparers, threads))?;
            for (at, batch) in self.batches.iter().enumerate() {
                progress();
                let session = &mut sessions[at];
                let inputs = inputs_of(engines, *batch * preparers.input_len())?;
                let mut runs = Vec::new();
                session.time(|| {
                    runs = run_sessions(engines, &inputs, *batch, self.time)?;
                    Ok::<_, BenchError>(runs.len() * batch)
                })?;
                session.runs.extend(runs);
                progress();
                let count = session.images_per_s() * self.time.as_secs_f64();
                self.whole(engines, *batch, count as usize, &mut wholes[at])?;
            }
        }
        let prepare = PrepareSpeed {
            images_per_s: prepare.images_per_s(),
            core_ms_per_image: prepare.cpu_ms_per_image(),
        };
        let tallies = sessions.into_iter().zip(wholes);
        let batches = self.batches.iter().zip(tallies);
        Ok(ScoreSpeed {
            prepare,
            batches: batches
                .map(|(batch, (session, whole))| self.speed(*batch, session, &whole, prepare))
                .collect(),
        })
    }

    /// Scores about `count` images by batches of `batch`.
    fn whole(
        &self,
        engines: &mut [Box<dyn Engine>],
        batch: usize,
        count: usize,
        tally: &mut BenchTally,
    ) -> Result<(), BenchError> {
        let count = count.div_ceil(batch).max(LEAST_RUNS) * batch;
        let samples: Vec<Sample> = self.samples.iter().cycle().take(count).cloned().collect();
        let options = PipelineOptions {
            batch,
            ..self.options.clone()
        };
        let mut failure = None;
        // Where it cannot be done, the peak is that of the whole process.
        let _ = memory::reset_peak();
        let from = ScoreSource {
            samples: &samples,
            files: &LocalFiles,
            stop: &AtomicBool::new(false),
        };
        tally.time(|| {
            score_to(engines, from, &options, &mut |scores| {
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
        whole: &BenchTally,
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
                images_per_s: whole.images_per_s(),
                cpu_ms_per_image: whole.cpu_ms_per_image(),
                peak_rss_mb: whole.peak.map(|bytes| bytes as f64 / 1e6),
            },
            allowed_images_per_s,
        }
    }
}

/// Reads and prepares `samples`, again and again, on so many threads for a while; returns how many
/// that were.
///
/// # Errors
///
/// The first sample that cannot be read.
pub fn prepare_for(
    time: Duration,
    samples: &[Sample],
    preparers: &PreprocessorSet,
    threads: usize,
) -> Result<usize, SampleError> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let work = || -> Result<usize, SampleError> {
        let mut input = vec![0.0; preparers.input_len()];
        let mut count = 0;
        while start.elapsed() < time {
            let at = next.fetch_add(1, Ordering::Relaxed) % samples.len();
            preparers.load(&samples[at], &DecodeLimits::default(), &mut input)?;
            count += 1;
        }
        Ok(count)
    };
    thread::scope(|scope| {
        let spawn = |_| scope.spawn(work);
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        threads.into_iter().map(joined).sum()
    })
}

/// A batch of `len` values for each engine.
fn inputs_of(engines: &[Box<dyn Engine>], len: usize) -> Result<Vec<Buffer>, EngineError> {
    let inputs = engines.iter().map(|engine| {
        let mut input = engine.buffer(len)?;
        input.values_mut().fill(0.1);
        Ok(input)
    });
    inputs.collect()
}

/// Runs all engines side by side for a while, and tells how long each run took.
fn run_sessions(
    engines: &mut [Box<dyn Engine>],
    inputs: &[Buffer],
    batch: usize,
    time: Duration,
) -> Result<Vec<Duration>, BenchError> {
    let start = Instant::now();
    let work = |engine: &mut Box<dyn Engine>, images: &[f32]| {
        let mut runs = Vec::new();
        while runs.len() < LEAST_RUNS || start.elapsed() < time {
            let run = Instant::now();
            engine.run(images, batch)?;
            runs.push(run.elapsed());
        }
        Ok::<_, EngineError>(runs)
    };
    thread::scope(|scope| {
        // A buffer may be sent to another thread, not shared with it; its values may.
        let inputs: Vec<&[f32]> = inputs.iter().map(Buffer::values).collect();
        let given = engines.iter_mut().zip(inputs);
        let threads: Vec<_> = given
            .map(|(engine, images)| scope.spawn(move || work(engine, images)))
            .collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(joined(thread)?);
        }
        Ok(all)
    })
}

/// A thread's result; its panic goes on here.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    let result = thread.join();
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The nearest-rank percentile of sorted times, in milliseconds.
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
    fn percentiles_are_nearest_ranks() {
        let times: Vec<Duration> = (1..=20).map(Duration::from_millis).collect();
        let rank = |times: &[Duration], percent| percentile_ms(times, percent).round() as i32;
        assert_eq!(
            [50, 95, 99].map(|percent| rank(&times, percent)),
            [10, 19, 20]
        );
        assert_eq!(rank(&times[..1], 50), 1);
    }
}

//! Speed of reading, decoding, resizing and normalizing images.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::join;
use rgby_imaging::{DecodeLimits, Preprocess, PreprocessorSet, Sample, SampleError};

/// Duration of a round on one thread, and of one on all threads.
const ROUND: Duration = Duration::from_millis(200);

/// Speed of preprocessing in samples per second; the best of all rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreprocessSpeed {
    /// On one thread.
    pub per_core: f64,
    /// On all threads together.
    pub all_cores: f64,
    /// Number of threads of `all_cores`.
    pub threads: usize,
}

impl PreprocessSpeed {
    /// Measures `samples` on one thread and on all, after one round that fills caches.
    ///
    /// # Errors
    ///
    /// A sample cannot be read.
    pub fn measure(
        samples: &[Sample],
        preprocess: Preprocess,
        rounds: usize,
    ) -> Result<Self, SampleError> {
        let preparers = PreprocessorSet::new(&[preprocess]);
        let speed = |threads| -> Result<f64, SampleError> {
            let start = Instant::now();
            let count = prepare_for(ROUND, samples, &preparers, threads)?;
            Ok(count as f64 / start.elapsed().as_secs_f64())
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        speed(threads)?;
        let (mut per_core, mut all_cores) = (0.0f64, 0.0f64);
        for _ in 0..rounds {
            per_core = per_core.max(speed(1)?);
            all_cores = all_cores.max(speed(threads)?);
        }
        Ok(Self {
            per_core,
            all_cores,
            threads,
        })
    }
}

/// Preprocesses `samples` repeatedly on this number of threads for `time`; returns the number of
/// preprocessed samples.
///
/// # Errors
///
/// The first sample that cannot be read.
pub(super) fn prepare_for(
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
            let index = next.fetch_add(1, Ordering::Relaxed) % samples.len();
            preparers.load(&samples[index], &DecodeLimits::default(), &mut input)?;
            count += 1;
        }
        Ok(count)
    };
    thread::scope(|scope| {
        let spawn = |_| scope.spawn(work);
        let threads: Vec<_> = (0..threads).map(spawn).collect();
        threads.into_iter().map(join).sum()
    })
}

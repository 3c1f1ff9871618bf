//! How fast image files become a network's input.

use std::thread;
use std::time::{Duration, Instant};

use crate::data::Images;
use crate::imaging::{CHANNELS, Preparers, Preprocess};
use crate::score::prepare_for;

/// How long a round takes on one thread, and on all.
const ROUND: Duration = Duration::from_millis(200);

/// Samples a second that are read, decoded, resized and normalised, the best of all rounds.
#[derive(Debug)]
pub struct PreprocessSpeed {
    /// Samples of the folder.
    pub samples: usize,
    /// On one thread.
    pub per_core: f64,
    /// On all threads together.
    pub all_cores: f64,
    /// How many threads those are.
    pub threads: usize,
}

impl PreprocessSpeed {
    /// Measures the samples of a folder at `size`×`size` pixels, after one round that fills caches.
    ///
    /// # Errors
    ///
    /// There are no samples, one cannot be read, or the size is not one.
    pub fn measure(images: &Images, size: u32, rounds: usize) -> anyhow::Result<Self> {
        let preprocess = Preprocess::new(&CHANNELS, size);
        preprocess.validate().map_err(anyhow::Error::msg)?;
        let samples = images.find(&preprocess.stains())?;
        let preparers = Preparers::new(&[preprocess]);
        let speed = |threads| -> anyhow::Result<f64> {
            let start = Instant::now();
            let count = prepare_for(ROUND, &samples, &preparers, threads)?;
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
            samples: samples.len(),
            per_core,
            all_cores,
            threads,
        })
    }
}

//! How fast image files become a network's input.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use rayon::prelude::*;

use crate::imaging::{CHANNELS, DecodeLimits, Preparer, Preprocess, Sample, find_samples};

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
    pub fn measure(images: &Path, size: u32, rounds: usize) -> anyhow::Result<Self> {
        let preprocess = Preprocess::new(&CHANNELS, size);
        preprocess.validate().map_err(anyhow::Error::msg)?;
        let samples = find_samples(images, &preprocess.stains())?;
        let preparer = Preparer::new(preprocess);
        let load = |input: &mut Vec<f32>, sample: &Sample| -> anyhow::Result<()> {
            input.resize(preparer.preprocess().input_len(), 0.0);
            preparer.load(sample, &DecodeLimits::default(), input)?;
            Ok(())
        };
        let alone = || {
            let mut input = Vec::new();
            samples
                .iter()
                .try_for_each(|sample| load(&mut input, sample))
        };
        let together = || {
            let samples = samples.par_iter();
            samples.try_for_each_init(Vec::new, load)
        };
        let speed = |work: &dyn Fn() -> anyhow::Result<()>| -> anyhow::Result<f64> {
            let start = Instant::now();
            work()?;
            Ok(samples.len() as f64 / start.elapsed().as_secs_f64())
        };
        together().context("nothing was measured")?;
        let (mut per_core, mut all_cores) = (0.0f64, 0.0f64);
        for _ in 0..rounds {
            per_core = per_core.max(speed(&alone)?);
            all_cores = all_cores.max(speed(&together)?);
        }
        Ok(Self {
            samples: samples.len(),
            per_core,
            all_cores,
            threads: rayon::current_num_threads(),
        })
    }
}

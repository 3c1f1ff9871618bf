//! How fast image files become a network's input.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::BenchArgs;
use crate::cli::Ui;
use crate::cli::engine_args::threads;
use crate::data::Images;
use crate::imaging::{CHANNELS, Preprocess, PreprocessorSet};
use crate::score::prepare_for;

/// How long a round takes on one thread, and on all.
const ROUND: Duration = Duration::from_millis(200);

/// Samples a second that are read, decoded, resized and normalised, the best of all rounds.
struct PreprocessSpeed {
    /// Samples of the folder.
    samples: usize,
    /// On one thread.
    per_core: f64,
    /// On all threads together.
    all_cores: f64,
    /// How many threads those are.
    threads: usize,
}

/// Measures reading and preparing images and prints it.
pub(super) fn measure(args: &BenchArgs, ui: &Ui) -> anyhow::Result<()> {
    // clap asks for --images.
    let images = args.images.as_deref().unwrap_or(Path::new("."));
    let images = args.layout.of(images)?;
    let speed = PreprocessSpeed::measure(&images, args.input_size, args.steps)?;
    if args.json {
        ui.print_json(&json!({
            "input_size": args.input_size,
            "samples": speed.samples,
            "preprocess_images_per_s_per_core": speed.per_core,
            "preprocess_images_per_s": speed.all_cores,
            "threads": speed.threads,
        }))?;
    } else {
        ui.print(&format!(
            "{} samples to {}²\n\
             one core    {:>7.0} images/s\n\
             {:>2} threads  {:>7.0} images/s\n",
            speed.samples, args.input_size, speed.per_core, speed.threads, speed.all_cores,
        ))?;
    }
    Ok(())
}

impl PreprocessSpeed {
    /// Measures the samples of a folder at `size`×`size` pixels, after one round that fills caches.
    fn measure(images: &Images, size: u32, rounds: usize) -> anyhow::Result<Self> {
        let preprocess = Preprocess::new(&CHANNELS, size);
        preprocess.validate().map_err(anyhow::Error::msg)?;
        let samples = images.find(&preprocess.stains())?;
        let preparers = PreprocessorSet::new(&[preprocess]);
        let speed = |threads| -> anyhow::Result<f64> {
            let start = Instant::now();
            let count = prepare_for(ROUND, &samples, &preparers, threads)?;
            Ok(count as f64 / start.elapsed().as_secs_f64())
        };
        let threads = threads();
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

//! `rgby bench --preprocess`: speed of reading, decoding, resizing and normalizing.

use std::path::Path;

use serde_json::json;

use super::BenchArgs;
use crate::cli::Ui;
use crate::imaging::{CHANNELS, Preprocess};
use crate::score::PreprocessSpeed;

/// Measures the images of the folder and prints the result.
pub(super) fn bench(args: &BenchArgs, ui: &Ui) -> anyhow::Result<()> {
    // clap requires --images.
    let images = args.images.as_deref().unwrap_or(Path::new("."));
    let preprocess = Preprocess::new(&CHANNELS, args.input_size);
    preprocess.validate().map_err(anyhow::Error::msg)?;
    let samples = args.layout.of(images)?.find(&preprocess.stains())?;
    let speed = PreprocessSpeed::measure(&samples, preprocess, args.steps)?;
    if args.json {
        ui.print_json(&json!({
            "input_size": args.input_size,
            "samples": samples.len(),
            "preprocess_images_per_s_per_core": speed.per_core,
            "preprocess_images_per_s": speed.all_cores,
            "threads": speed.threads,
        }))?;
    } else {
        ui.print(&format!(
            "{} samples to {}²\n\
             one core    {:>7.0} images/s\n\
             {:>2} threads  {:>7.0} images/s\n",
            samples.len(),
            args.input_size,
            speed.per_core,
            speed.threads,
            speed.all_cores,
        ))?;
    }
    Ok(())
}

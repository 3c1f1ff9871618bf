//! `rgby bench --train`: speed of training.

use std::sync::Arc;

use anyhow::Context;
use serde_json::json;

use super::{BenchArgs, generate_samples};
use crate::cli::Ui;
use crate::data::{Dataset, Images, PixelCache};
use crate::memory;
use crate::train::{Config, TrainBench, TrainDevice, TrainSpeed};

/// Measures training and prints the result.
pub(super) fn bench(args: &BenchArgs, ui: &Ui) -> anyhow::Result<()> {
    memory::keep_freed_memory();
    let device: TrainDevice = args.device.parse().map_err(anyhow::Error::msg)?;
    let dir = tempfile::tempdir().context("cannot create a temporary folder")?;
    let config = config(args)?;
    let data = dir.path().join("data");
    ui.note("generating samples …");
    generate_samples(&data)?;
    let (images, labels) = (data.join("images"), data.join("labels.csv"));
    let stains = config.preprocess().stains();
    let dataset = Dataset::open(
        &Images::plain(&images),
        &labels,
        &stains,
        config.model.classes.len(),
    )?;
    let cache = dir.path().join("pixels.cache");
    PixelCache::write(&cache, &dataset, &config.cache_form(), &|_| {})?;
    ui.note(&format!("measuring {} steps …", args.steps));
    let speed = TrainBench {
        config,
        dataset: Arc::new(dataset),
        cache: Arc::new(PixelCache::open(&cache)?),
        device: device.open().map_err(anyhow::Error::msg)?,
        folder: dir.path(),
    }
    .measure()?;
    print(args, &speed, ui)
}

fn print(args: &BenchArgs, speed: &TrainSpeed, ui: &Ui) -> anyhow::Result<()> {
    let peak = memory::peak();
    if args.json {
        ui.print_json(&json!({
            "arch": args.arch.name(),
            "input_size": args.input_size,
            "batch_size": args.batch_size,
            "device": args.device,
            "step_images_per_s": speed.step,
            "loader_images_per_s": speed.loader,
            "decoder_images_per_s": speed.decoder,
            "loop_images_per_s": speed.train_loop,
            "loop_to_step": speed.train_loop / speed.step,
            "step_peak_rss_mb": speed.step_peak.map(megabytes),
            "peak_rss_mb": peak.map(megabytes),
        }))?;
        return Ok(());
    }
    let shown = |peak: Option<usize>| {
        peak.map_or_else(
            || "unknown".into(),
            |peak| format!("{:.0} MB", megabytes(peak)),
        )
    };
    ui.print(&format!(
        "{} at {}², batches of {}, on {}\n\
         bare step                {:>9.2} images/s\n\
         full loop                {:>9.2} images/s, {:.3} of the bare step\n\
         loader, from the cache   {:>9.0} images/s\n\
         loader, from 512² images {:>9.0} images/s\n\
         peak memory              {:>9}, {} in the bare step\n",
        args.arch.name(),
        args.input_size,
        args.batch_size,
        args.device,
        speed.step,
        speed.train_loop,
        speed.train_loop / speed.step,
        speed.loader,
        speed.decoder,
        shown(peak),
        shown(speed.step_peak),
    ))?;
    Ok(())
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// Returns the config of one epoch with `--steps` steps.
fn config(args: &BenchArgs) -> anyhow::Result<Config> {
    let text = format!(
        "[model]\narch = \"{}\"\ninput_size = {}\n[train]\nepochs = 1\nsteps_per_epoch = {}\n\
         batch_size = {}\n[optimizer]\nname = \"adadelta\"\n[data]\nsplit = \"none\"\n",
        args.arch.name(),
        args.input_size,
        args.steps,
        args.batch_size
    );
    Ok(Config::parse("rgby bench", &text, &args.set)?)
}

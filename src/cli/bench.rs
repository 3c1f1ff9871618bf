//! `rgby bench`: how fast this machine is.

mod preprocess;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use serde_json::json;

use self::preprocess::PreprocessSpeed;
use super::{Outcome, Ui};
use crate::data::{Dataset, PixelCache};
use crate::model::Arch;
use crate::synth::{SynthConfig, generate};
use crate::train::{Config, TrainBench, TrainDevice};

/// Samples that are drawn for it.
const SAMPLES: usize = 48;

/// Measure how fast this machine trains, or reads images
///
/// With --train: images per second of the bare step (a batch that is always there), of the loader
/// alone (from a pixel cache, and from PNG files of 512×512) and of the whole loop. Samples and
/// weights are made up for it. With --preprocess: how many samples of a folder are read, decoded,
/// resized and normalised in a second, on one core and on all. A sample, all its channels
/// together, counts as one image.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rgby bench --train --arch resnet50 --input-size 224 --batch-size 8
  rgby bench --preprocess --images data/images --input-size 224")]
pub struct BenchArgs {
    /// Measure training
    #[arg(long, required_unless_present = "preprocess")]
    pub train: bool,
    /// Measure how fast image files become a network's input
    #[arg(long, conflicts_with = "train", requires = "images")]
    pub preprocess: bool,
    /// Folder of images that --preprocess reads
    #[arg(
        long,
        value_name = "DIR",
        requires = "preprocess",
        conflicts_with = "train"
    )]
    pub images: Option<PathBuf>,
    /// Network
    #[arg(long, value_enum, default_value = "resnet50")]
    pub arch: Arch,
    /// Side of the input in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 224)]
    pub input_size: u32,
    /// Samples a step
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub batch_size: usize,
    /// Steps that are measured, of each kind; with --preprocess rounds, of which the best counts
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_least_one)]
    pub steps: usize,
    /// Where to train: cpu, cuda, cuda:1, wgpu, …
    #[arg(long, default_value = "cpu")]
    pub device: TrainDevice,
    /// Print the result to stdout as one JSON document
    #[arg(long)]
    pub json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("measure at least one step".into()),
        other => other.map_err(|error: std::num::ParseIntError| error.to_string()),
    }
}

impl BenchArgs {
    /// Measures.
    ///
    /// # Errors
    ///
    /// The network cannot be trained at that size, the device is not there, or an image cannot be
    /// read.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        if let Some(images) = &self.images {
            return self.print_preprocess(
                ui,
                &PreprocessSpeed::measure(images, self.input_size, self.steps)?,
            );
        }
        let device = self.device.open().map_err(anyhow::Error::msg)?;
        let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
        let config = self.config(dir.path())?;
        let data = dir.path().join("data");
        let synth = SynthConfig {
            count: SAMPLES,
            ..SynthConfig::default()
        };
        ui.note("drawing samples …");
        generate(&data, &synth, &|_| {})?;
        let (images, labels) = (data.join("images"), data.join("labels.csv"));
        let stains = config.preprocess().stains();
        let dataset = Dataset::open(&images, &labels, &stains, config.model.classes.len())?;
        let cache = dir.path().join("pixels.cache");
        PixelCache::write(&cache, &dataset, &config.cache_form(), &|_| {})?;
        ui.note(&format!("measuring {} steps …", self.steps));
        let speed = TrainBench {
            config,
            dataset: Arc::new(dataset),
            cache: Arc::new(PixelCache::open(&cache)?),
            device,
            folder: dir.path(),
        }
        .measure()?;
        let peak = peak_rss_mb();
        if self.json {
            ui.print_json(&json!({
                "arch": self.arch.name(),
                "input_size": self.input_size,
                "batch_size": self.batch_size,
                "device": self.device.to_string(),
                "step_images_per_s": speed.step,
                "loader_images_per_s": speed.loader,
                "decoder_images_per_s": speed.decoder,
                "loop_images_per_s": speed.whole,
                "loop_to_step": speed.whole / speed.step,
                "peak_rss_mb": peak,
            }))?;
            return Ok(Outcome::Done);
        }
        let peak = peak.map_or_else(|| "unknown".into(), |peak| format!("{peak:.0} MB"));
        ui.print(&format!(
            "{} at {}², batches of {}, on {}\n\
             bare step                {:>9.2} images/s\n\
             whole loop               {:>9.2} images/s, {:.3} of the bare step\n\
             loader, from the cache   {:>9.0} images/s\n\
             loader, from 512² images {:>9.0} images/s\n\
             peak memory              {peak:>9}\n",
            self.arch.name(),
            self.input_size,
            self.batch_size,
            self.device,
            speed.step,
            speed.whole,
            speed.whole / speed.step,
            speed.loader,
            speed.decoder,
        ))?;
        Ok(Outcome::Done)
    }

    fn print_preprocess(&self, ui: &Ui, speed: &PreprocessSpeed) -> anyhow::Result<Outcome> {
        if self.json {
            ui.print_json(&json!({
                "input_size": self.input_size,
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
                speed.samples, self.input_size, speed.per_core, speed.threads, speed.all_cores,
            ))?;
        }
        Ok(Outcome::Done)
    }

    fn config(&self, dir: &std::path::Path) -> anyhow::Result<Config> {
        let text = format!(
            "[model]\narch = \"{}\"\ninput_size = {}\n[train]\nepochs = 1\nsteps_per_epoch = {}\n\
             batch_size = {}\n[optimizer]\nname = \"adadelta\"\n[data]\nsplit = \"none\"\n",
            self.arch.name(),
            self.input_size,
            self.steps,
            self.batch_size
        );
        let path = dir.join("bench.toml");
        fs::write(&path, text)?;
        Ok(Config::read(&path, &[])?)
    }
}

/// The most memory that this process has had so far, in MB; only Linux tells.
fn peak_rss_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

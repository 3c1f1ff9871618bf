//! `rgby bench`: speed of scoring, training and preprocessing.

mod preprocess;
mod scoring;
mod training;

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::engine_args::RunnerArgs;
use super::{LayoutArgs, Outcome, Ui};
use crate::model::Arch;
use crate::synth::{SynthConfig, generate};

/// Number of synthetic samples.
const SAMPLES: usize = 48;

/// Measure the speed of scoring, training or preprocessing on this machine
///
/// --model measures, for each batch size: the session alone (images/s, percentiles of batch time),
/// preprocessing alone, and both together as in `rgby score`. It also prints the speed that the two
/// costs allow on shared processors.
///
/// --train measures images/s of the training step alone (one batch, reused), of the loader alone
/// (from a pixel cache, and from 512×512 PNG files) and of the whole loop. Samples and weights are
/// synthetic.
///
/// --preprocess measures samples/s of reading, decoding, resizing and normalizing a folder, on one
/// core and on all. A sample with all its channels counts as one image.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["model", "train", "preprocess"])))]
#[command(after_help = "Example:
  rgby bench --model model.onnx --images data/images
  rgby bench --train --arch resnet50 --input-size 224 --batch-size 8
  rgby bench --preprocess --images data/images --input-size 224")]
pub struct BenchArgs {
    /// Measure scoring with these model files of `rgby export`
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub model: Vec<PathBuf>,
    /// Measure training
    #[arg(long, conflicts_with = "RunnerArgs")]
    pub train: bool,
    /// Measure preprocessing of image files
    #[arg(long, requires = "images", conflicts_with = "RunnerArgs")]
    pub preprocess: bool,
    /// Image folder, or manifest that lists the image files
    ///
    /// [default with --model: 48 synthetic samples of 512×512]
    #[arg(
        long,
        value_name = "DIR|FILE.csv|FILE.parquet",
        conflicts_with = "train"
    )]
    pub images: Option<PathBuf>,
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// Device: cpu, cuda[:i], tensorrt[:i] (--model only), wgpu[:i] or torch (--train only)
    #[arg(long, conflicts_with = "preprocess", default_value = "cpu")]
    pub device: String,
    /// Comma-separated batch sizes for --model
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with_all = ["train", "preprocess"], default_value = "1,2,4,8,16,32", value_parser = at_least_one)]
    pub batch_sizes: Vec<usize>,
    /// Seconds per measurement in a round, with --model
    #[arg(long, value_name = "S", conflicts_with_all = ["train", "preprocess"], default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Number of rounds with --model; each round repeats all measurements
    #[arg(long, value_name = "N", conflicts_with_all = ["train", "preprocess"], default_value_t = 3, value_parser = at_least_one)]
    pub rounds: usize,
    /// SVG plot of images/s by batch size, for the first --model
    #[arg(long, value_name = "FILE.svg", conflicts_with_all = ["train", "preprocess"])]
    pub plot: Option<PathBuf>,
    #[command(flatten)]
    pub runner: RunnerArgs,
    /// Network to train
    #[arg(long, value_enum, conflicts_with_all = ["model", "preprocess"], default_value = "resnet50")]
    pub arch: Arch,
    /// Side of the input in pixels, with --train and --preprocess
    #[arg(
        long,
        value_name = "PIXELS",
        conflicts_with = "model",
        default_value_t = 224
    )]
    pub input_size: u32,
    /// Batch size with --train
    #[arg(long, value_name = "N", conflicts_with_all = ["model", "preprocess"], default_value_t = 8)]
    pub batch_size: usize,
    /// Steps per measurement with --train; rounds with --preprocess, of which the best counts
    #[arg(long, value_name = "N", conflicts_with = "model", default_value_t = 8, value_parser = at_least_one)]
    pub steps: usize,
    /// Config value for --train, for example `train.ema=0.999`; may be repeated
    #[arg(long, value_name = "TABLE.KEY=VALUE", conflicts_with_all = ["model", "preprocess"])]
    pub set: Vec<String>,
    /// Print the result as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".into()),
        other => other.map_err(|error: std::num::ParseIntError| error.to_string()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number")?;
    if (0.01..=3600.0).contains(&seconds) {
        return Ok(seconds);
    }
    Err("use 0.01 to 3600".into())
}

impl BenchArgs {
    /// Measures and prints the result.
    ///
    /// # Errors
    ///
    /// The model or the training failed, the device is not available, or an image cannot be read.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        if !self.model.is_empty() {
            scoring::bench(self, ui)?;
        } else if self.train {
            training::bench(self, ui)?;
        } else {
            preprocess::bench(self, ui)?;
        }
        Ok(Outcome::Done)
    }
}

/// Generates samples of 512×512 in a folder.
fn generate_samples(folder: &Path) -> anyhow::Result<()> {
    let synth = SynthConfig {
        count: SAMPLES,
        ..SynthConfig::default()
    };
    Ok(generate(folder, &synth, &|_| {})?)
}

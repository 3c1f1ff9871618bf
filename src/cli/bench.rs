//! `rgby bench`: how fast this machine is.

mod preprocess;
mod scoring;
mod training;

use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};

use super::engine_args::RunnerArgs;
use super::{LayoutArgs, Outcome, Ui};
use crate::model::Arch;
use crate::synth::{SynthConfig, generate};

/// Samples that are drawn where none are given.
const SAMPLES: usize = 48;

/// Measure how fast this machine scores, trains, or reads images
///
/// With --model: for each batch size the model's session alone (images per second, percentiles of
/// a batch's time), reading and preparing images alone, and both together as `rgby score` does it,
/// with what the two costs allow on shared processors. With --train: images per second of the bare
/// step (a batch that is always there), of the loader alone (from a pixel cache, and from PNG files
/// of 512×512) and of the whole loop; samples and weights are made up for it. With --preprocess:
/// how many samples of a folder are read, decoded, resized and normalised in a second, on one core
/// and on all. A sample, all its channels together, counts as one image.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["model", "train", "preprocess"])))]
#[command(after_help = "Example:
  rgby bench --model model.onnx --images data/images
  rgby bench --train --arch resnet50 --input-size 224 --batch-size 8
  rgby bench --preprocess --images data/images --input-size 224")]
pub struct BenchArgs {
    /// Measure scoring with these models, as `rgby export` wrote them
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub model: Vec<PathBuf>,
    /// Measure training
    #[arg(long, conflicts_with = "RunnerArgs")]
    pub train: bool,
    /// Measure how fast image files become a network's input
    #[arg(long, requires = "images", conflicts_with = "RunnerArgs")]
    pub preprocess: bool,
    /// Folder of images to read, or a manifest that names them [default with --model: 48 samples of
    /// 512×512 are drawn]
    #[arg(
        long,
        value_name = "DIR|FILE.csv|FILE.parquet",
        conflicts_with = "train"
    )]
    pub images: Option<PathBuf>,
    /// How the images are stored
    #[command(flatten)]
    pub layout: LayoutArgs,
    /// Where to run or train: cpu, cuda, cuda:1, tensorrt (--model), wgpu (--train), …
    #[arg(long, conflicts_with = "preprocess", default_value = "cpu")]
    pub device: String,
    /// Batch sizes to measure with --model
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with_all = ["train", "preprocess"], default_value = "1,2,4,8,16,32", value_parser = at_least_one)]
    pub batch_sizes: Vec<usize>,
    /// Seconds for each part in a round, with --model
    #[arg(long, value_name = "S", conflicts_with_all = ["train", "preprocess"], default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Rounds with --model: in each, every part takes its turn
    #[arg(long, value_name = "N", conflicts_with_all = ["train", "preprocess"], default_value_t = 3, value_parser = at_least_one)]
    pub rounds: usize,
    /// Draw images per second by batch size to this SVG file, of the first --model
    #[arg(long, value_name = "FILE.svg", conflicts_with_all = ["train", "preprocess"])]
    pub plot: Option<PathBuf>,
    /// How to run --model
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
    /// Samples a step, with --train
    #[arg(long, value_name = "N", conflicts_with_all = ["model", "preprocess"], default_value_t = 8)]
    pub batch_size: usize,
    /// Steps that are measured, of each kind; with --preprocess rounds, of which the best counts
    #[arg(long, value_name = "N", conflicts_with = "model", default_value_t = 8, value_parser = at_least_one)]
    pub steps: usize,
    /// Set a value of the config that --train uses, for example `train.ema=0.999`;
    /// may be repeated
    #[arg(long, value_name = "TABLE.KEY=VALUE", conflicts_with_all = ["model", "preprocess"])]
    pub set: Vec<String>,
    /// Print the result to stdout as one JSON document
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
    /// Measures.
    ///
    /// # Errors
    ///
    /// The model cannot be run or the network not be trained, the device is not there, or an image
    /// cannot be read.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        if !self.model.is_empty() {
            scoring::measure(self, ui)?;
        } else if self.train {
            training::measure(self, ui)?;
        } else {
            preprocess::measure(self, ui)?;
        }
        Ok(Outcome::Done)
    }
}

/// Draws samples of 512×512 into a folder.
fn draw(folder: &Path) -> anyhow::Result<()> {
    let synth = SynthConfig {
        count: SAMPLES,
        ..SynthConfig::default()
    };
    Ok(generate(folder, &synth, &|_| {})?)
}

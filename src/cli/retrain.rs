//! `rgby retrain`: starts a new run from the weights of a trained network.

use std::path::PathBuf;

use clap::Args;

use super::train::RunArgs;
use super::{Outcome, Ui};
use crate::train::HeadChoice;

/// Start a new run from a checkpoint's weights, with its own config and optimizer
///
/// `--from RUN` uses the best checkpoint of the run. `--from model.onnx` uses the checkpoint that
/// the file was exported from.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rgby retrain --from runs/first --config configs/resnet50-rgby.toml \\\n    \
    --set optimizer.name=adam --set optimizer.lr=1e-4 \\\n    \
    --images train/ --labels train.csv --out runs/second"
)]
pub struct RetrainArgs {
    /// Checkpoint, run or ONNX file to start from
    #[arg(long, value_name = "CKPT|RUN|FILE")]
    pub from: PathBuf,
    /// What to do with the head of the checkpoint
    #[arg(long, value_enum, default_value = "auto")]
    pub head: HeadChoice,
    #[command(flatten)]
    pub run: RunArgs,
}

impl RetrainArgs {
    /// Trains a run.
    ///
    /// # Errors
    ///
    /// Config, data and checkpoint do not match, or training failed; saved checkpoints remain.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        self.run.start(Some(&self.from), self.head, ui)
    }
}

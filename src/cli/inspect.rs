//! `rgby inspect`: describes a checkpoint, a run or an ONNX file.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, Ui};
use crate::inspect::inspect;

/// Describe a checkpoint, a run or an ONNX file
///
/// For any ONNX file: inputs, outputs, operators and weights, and whether `rgby convert` accepts
/// it, with what would be unfolded or the first node that differs. For a file of `rgby export`, also
/// classes, thresholds, preprocessing and provenance. For a run, its config and progress.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby inspect model.onnx
  rgby inspect runs/first --json")]
pub struct InspectArgs {
    /// Checkpoint, run or ONNX file
    #[arg(value_name = "CKPT|RUN|FILE")]
    pub path: PathBuf,
    /// Print the result as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

impl InspectArgs {
    /// Prints the description.
    ///
    /// # Errors
    ///
    /// The path is none of the three, or damaged.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let inspection = inspect(&self.path)?;
        if self.json {
            ui.print_json(&inspection.to_json())?;
        } else {
            ui.print(&inspection.to_string())?;
        }
        Ok(Outcome::Done)
    }
}

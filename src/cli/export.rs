//! `rgby export`: a checkpoint becomes one ONNX file.

use std::path::PathBuf;

use anyhow::ensure;
use burn::tensor::Device;
use clap::Args;

use super::{Outcome, Ui};
use crate::export::{Description, TOLERANCE, export};
use crate::model::{Classifier, Keep};
use crate::score::{EngineChoice, Runtime, RuntimeOptions};
use crate::train::{Checkpoint, resolve};

/// Write a checkpoint as one self-contained ONNX file
///
/// Classes, thresholds, channels, size and normalisation go into the file's metadata. Before it
/// is written, the serving engine must agree with Burn on the same input.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  rgby export --from runs/first --out model.onnx")]
pub struct ExportArgs {
    /// Checkpoint, or run (its best one)
    #[arg(long, value_name = "CKPT|RUN")]
    pub from: PathBuf,
    /// The ONNX file
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// What checks the file: onnxruntime, tract, or auto: ONNX Runtime if it is found
    #[arg(long, value_name = "ENGINE", default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// ONNX Runtime's library, if it is not where it would be found
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

impl ExportArgs {
    /// Exports.
    ///
    /// # Errors
    ///
    /// The checkpoint does not load, the engines disagree, or the file cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        ensure!(
            !self.out.is_dir(),
            "{} is a folder; --out names a file",
            self.out.display()
        );
        let dir = resolve(&self.from)?;
        let checkpoint = Checkpoint::open(&dir)?;
        let runtime = Runtime::start(&RuntimeOptions {
            engine: self.engine,
            ort_lib: self.ort_lib.clone(),
            ..RuntimeOptions::default()
        })?;
        if let Some(notice) = runtime.notice() {
            ui.note(notice);
        }
        // Capturing a network leaves it unusable, so that the check gets one of its own.
        let load = || {
            let fresh = Classifier::new(&checkpoint.model, 0, &Device::flex());
            Checkpoint::load(&dir, fresh, Keep::All)
        };
        let description = Description {
            config: &checkpoint.model,
            spec: &checkpoint.spec,
        };
        let difference = export(&load()?, &load()?, &description, &self.out, runtime)?;
        if self.json {
            ui.print_json(&serde_json::json!({
                "from": dir,
                "out": self.out,
                "largest_difference": difference,
                "tolerance": TOLERANCE,
                "engine": runtime.describe(),
            }))?;
        } else {
            ui.note(&format!(
                "{} → {}: largest difference from Burn {difference:.1e} (at most {TOLERANCE:.0e}), \
                 {}",
                dir.display(),
                self.out.display(),
                runtime.describe()
            ));
        }
        Ok(Outcome::Done)
    }
}

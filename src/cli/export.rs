//! `rgby export`: writes a checkpoint as one ONNX file.

use std::path::PathBuf;

use clap::Args;

use super::{Outcome, Ui};
use crate::export::{ExportConfig, export};
use crate::model_metadata::Precision;
use crate::score::EngineChoice;

/// Write a checkpoint as one self-contained ONNX file
///
/// The file's metadata contains classes, thresholds, channels, size and normalization. Before the
/// file is written, its outputs in the serving engine are compared with those of Burn.
///
/// fp16 and int8 files are smaller and for scoring only: BatchNorm is folded into the convolutions,
/// so they cannot be retrained. Their size, speed and change of probabilities against float32 are
/// measured with ONNX Runtime and printed.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby export --from runs/first --out model.onnx
  rgby export --from runs/first --out small.onnx --precision int8 \\
    --calibrate valid/images --labels valid.csv
  rgby export --from runs/first --out model.onnx --thresholds report/thresholds.json
  rgby export --from model.onnx --out tuned.onnx --thresholds report/thresholds.json")]
pub struct ExportArgs {
    /// Checkpoint, or run whose best checkpoint is exported
    ///
    /// With --thresholds an exported file is accepted as well; only its thresholds change.
    #[arg(long, value_name = "CKPT|RUN|FILE")]
    pub from: PathBuf,
    /// Output ONNX file
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Thresholds for the file: `thresholds.json` of `rgby eval --tune-thresholds --out`
    #[arg(long, value_name = "JSON")]
    pub thresholds: Option<PathBuf>,
    /// Precision of weights and computation
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Folder of about a hundred or more typical images, for int8 calibration
    ///
    /// fp16 and int8 are compared with fp32 on these images.
    #[arg(long, value_name = "DIR")]
    pub calibrate: Option<PathBuf>,
    /// Labels of the --calibrate images, `Id,Target`, to compare macro-F1 with fp32
    #[arg(long, value_name = "CSV", requires = "calibrate")]
    pub labels: Option<PathBuf>,
    /// Add an output `embeddings` with the pooled features before the head
    #[arg(long)]
    pub with_embeddings: bool,
    /// Engine that checks the file: onnxruntime, tract or auto
    ///
    /// `auto` uses ONNX Runtime if its library is found, else the embedded tract.
    #[arg(long, value_name = "ENGINE", default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Path of the ONNX Runtime library [default: search for it]
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
    /// Print the result as one JSON document on stdout
    #[arg(long)]
    pub json: bool,
}

impl ExportArgs {
    /// Exports the checkpoint and prints the report.
    ///
    /// # Errors
    ///
    /// The checkpoint does not load, the engines disagree, a lower precision changes too much, or
    /// the file cannot be written.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        let config = ExportConfig {
            from: self.from.clone(),
            out: self.out.clone(),
            thresholds: self.thresholds.clone(),
            precision: self.precision,
            calibrate: self.calibrate.clone(),
            labels: self.labels.clone(),
            embeddings: self.with_embeddings,
            engine: self.engine,
            ort_lib: self.ort_lib.clone(),
        };
        let report = export(&config, &ui.observer())?;
        if self.json {
            ui.print_json(&report.to_json())?;
        } else {
            ui.note(&report.to_string());
        }
        Ok(Outcome::with_failures(report.failures().len(), false))
    }
}

//! Converts an ONNX file to a checkpoint directory.

use std::fmt::{self, Display};
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::model::{
    Arch, ConversionError, ConversionOptions, ConversionSource, ConvertedModel, PretrainedReport,
};
use crate::train::{Checkpoint, CheckpointContents, CheckpointError};

/// What to convert, and where to.
#[derive(Debug, Clone)]
pub struct ConvertConfig {
    /// A pretrained ONNX file, or a file that rgby exported.
    pub onnx: PathBuf,
    /// The checkpoint directory; an existing checkpoint is replaced.
    pub out: PathBuf,
    pub options: ConversionOptions,
}

/// A checkpoint that was written.
#[derive(Debug, Clone)]
pub struct ConvertReport {
    pub onnx: PathBuf,
    pub out: PathBuf,
    pub arch: Arch,
    /// SHA-256 of the ONNX file, lower-case hexadecimal.
    pub source_sha256: String,
    /// Number of classes of the checkpoint.
    pub classes: usize,
    pub weights: ConvertedWeights,
}

/// The origin of the weights of a converted checkpoint.
#[derive(Debug, Clone)]
pub enum ConvertedWeights {
    /// A pretrained backbone and a new head.
    Pretrained {
        report: PretrainedReport,
        /// The stem filter of each channel in words.
        stem: String,
    },
    /// The backbone and head of a file that rgby exported.
    Restored {
        /// Training steps of these weights.
        steps: u64,
    },
}

/// Why no checkpoint was written.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("{} is a file\nhint: --out names the checkpoint directory", .0.display())]
    OutIsFile(PathBuf),
    #[error(transparent)]
    Conversion(#[from] ConversionError),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// Converts an ONNX file to a checkpoint.
///
/// The stem of a pretrained network is widened to the requested channels and its classifier is
/// replaced by a new head. A file that rgby exported becomes the checkpoint that it was exported
/// from.
///
/// # Errors
///
/// [`ConvertError`]; then no checkpoint is written.
pub fn convert(config: &ConvertConfig) -> Result<ConvertReport, ConvertError> {
    let out = &config.out;
    if out.is_file() {
        return Err(ConvertError::OutIsFile(out.clone()));
    }
    let model = ConvertedModel::read(&config.onnx, &config.options)?;
    let unfolded = model.unfolded();
    let report = ConvertReport {
        onnx: config.onnx.clone(),
        out: out.clone(),
        arch: model.config.arch,
        source_sha256: model.source_sha256,
        classes: model.spec.classes.len(),
        weights: match model.source {
            ConversionSource::Pretrained { report, stem } => {
                ConvertedWeights::Pretrained { report, stem }
            }
            ConversionSource::Exported => ConvertedWeights::Restored {
                steps: model.spec.provenance.steps,
            },
        },
    };
    let mut checkpoint = Checkpoint::new(model.config, model.spec);
    checkpoint.unfolded = unfolded;
    checkpoint.save(out, CheckpointContents::weights(&model.classifier))?;
    Ok(report)
}

impl ConvertReport {
    /// Returns the report as one JSON document.
    ///
    /// # Errors
    ///
    /// Serialization fails.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        let mut document = match &self.weights {
            ConvertedWeights::Pretrained { report, .. } => serde_json::to_value(report)?,
            ConvertedWeights::Restored { steps } => json!({
                "arch": self.arch,
                "restored": true,
                "classes": self.classes,
                "steps": steps,
            }),
        };
        document["source_sha256"] = self.source_sha256.clone().into();
        Ok(document)
    }
}

impl Display for ConvertReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (onnx, out) = (self.onnx.display(), self.out.display());
        let (arch, hash) = (self.arch.name(), &self.source_sha256[..12]);
        match &self.weights {
            ConvertedWeights::Restored { steps } => write!(
                f,
                "{onnx}: {arch} as exported by rgby (sha256 {hash})\n  restored  backbone, head of {} \
                 classes, thresholds and preprocessing, after {steps} steps → {out}",
                self.classes
            ),
            ConvertedWeights::Pretrained { report, stem } => {
                write!(f, "{onnx}: {arch} (sha256 {hash})")?;
                for (label, text) in rows(report, stem) {
                    write!(f, "\n  {label:<9} {text}")?;
                }
                write!(f, "\n  {:<9} head of {} classes", "new", self.classes)?;
                let parameters = report.backbone_parameters;
                write!(f, "\n  {:<9} {parameters} parameters → {out}", "backbone")
            }
        }
    }
}

/// Returns a label and a text for each kind of tensor.
fn rows(report: &PretrainedReport, stem: &str) -> Vec<(&'static str, String)> {
    let (tensor, shape) = &report.widened;
    let mut rows = vec![
        (
            "matched",
            format!("{} tensors, bit-identical", report.matched),
        ),
        ("widened", format!("{tensor} to {shape:?}: {stem}")),
    ];
    let changed = [
        (
            "unfolded",
            report.unfolded,
            "BatchNorm layers that were folded into convolutions; training first measures their \
             statistics",
        ),
        (
            "absorbed",
            report.absorbed,
            "convolution biases, into the BatchNorm after them",
        ),
        (
            "rescaled",
            report.rescaled,
            "BatchNorm layers, for another epsilon or factor",
        ),
    ];
    for (label, count, text) in changed.into_iter().filter(|(_, count, _)| *count > 0) {
        rows.push((label, format!("{count} {text}")));
    }
    rows.push(("dropped", abbreviated(&report.dropped)));
    rows.push(("left out", abbreviated(&report.left_out)));
    rows
}

/// Joins up to four names; of a longer list the first two and the number of the rest.
fn abbreviated(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        names if names.len() <= 4 => names.join(", "),
        names => format!("{}, {} and {} more", names[0], names[1], names.len() - 2),
    }
}

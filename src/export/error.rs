//! Export errors.

use super::{FP16_TOLERANCE, INT8_LOST, TOLERANCE};
use crate::data::LabelError;
use crate::graph::GraphError;
use crate::model_metadata::{Precision, ThresholdFileError};
use crate::score::EngineError;
use crate::train::CheckpointError;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The request contradicts itself.
    #[error("{0}")]
    Config(String),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Thresholds(#[from] ThresholdFileError),
    /// The labels file cannot be read.
    #[error(transparent)]
    LabelFile(#[from] LabelError),
    /// The folder of calibration images cannot be used.
    #[error("--calibrate: {0}")]
    Images(String),
    /// Burn could not describe the network.
    #[error("cannot export the network: {0}")]
    Capture(String),
    /// The file cannot be written.
    #[error("cannot write {path}: {cause}")]
    Io { path: String, cause: std::io::Error },
    /// The inference engine rejects the file.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The inference engine computes other probabilities.
    #[error(
        "the exported model differs from Burn by {difference:.1e}, more than {TOLERANCE:.0e}; \
         the file was not written\nhint: please report this as a bug"
    )]
    Parity {
        /// Largest difference of a probability.
        difference: f32,
    },
    /// The graph cannot be rewritten.
    #[error("cannot rewrite the network: {cause}")]
    Graph { cause: GraphError },
    /// tract has no fast kernels for lower precisions.
    #[error(
        "--precision {precision} is compared with fp32 in ONNX Runtime, but {engine} is used, which \
         is many times slower\nhint: `pip install onnxruntime`, or pass --ort-lib PATH"
    )]
    SlowEngine {
        precision: Precision,
        engine: String,
    },
    /// No images for calibration.
    #[error(
        "--precision int8 needs images for calibration\nhint: pass a folder of about a hundred \
         typical images with --calibrate DIR"
    )]
    NoCalibrationImages,
    /// No image of the folder can be read.
    #[error("none of the {count} samples in --calibrate can be read; the first: {first}")]
    Unreadable {
        count: usize,
        /// What is wrong with the first sample.
        first: String,
    },
    /// The network cannot be run for calibration, or computes a value that is not finite.
    #[error("calibration: {0}")]
    Calibration(String),
    /// Labels and images have no id in common.
    #[error(
        "no image of --calibrate has a line in --labels\nhint: the first column of --labels holds \
         their ids"
    )]
    Unlabelled,
    /// Labels that macro-F1 cannot be computed with.
    #[error("--labels: {0}")]
    Labels(String),
    /// float16 changes a probability too much.
    #[error(
        "in float16 a probability differs by {difference:.1e} from float32, more than \
         {FP16_TOLERANCE:.0e}; the file was not written\nhint: export it with --precision fp32"
    )]
    Rounded {
        /// Largest difference of a probability.
        difference: f32,
    },
    /// int8 changes too many decisions.
    #[error(
        "int8 changes {:.0}% of the decisions by more than 0.1 (accepted are {:.0}%); the file was \
         not written\nhint: calibrate on more and on typical images, or export with --precision fp16",
        lost * 100.0, INT8_LOST * 100.0
    )]
    Drifted {
        /// Fraction of such decisions.
        lost: f64,
    },
}

impl From<GraphError> for ExportError {
    fn from(cause: GraphError) -> Self {
        Self::Graph { cause }
    }
}

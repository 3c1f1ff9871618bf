//! Why a network could not be exported.

use super::{FP16_TOLERANCE, INT8_LOST, TOLERANCE};
use crate::graph::GraphError;
use crate::model_metadata::Precision;
use crate::score::EngineError;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Burn could not describe the network.
    #[error("the network could not be exported: {0}")]
    Capture(String),
    /// The file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The serving engine refuses the file.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The serving engine computes something else.
    #[error(
        "the exported model differs from Burn by {difference:.1e}, more than {TOLERANCE:.0e}; \
         the file was not written, please report this"
    )]
    Parity {
        /// Largest difference of a probability.
        difference: f32,
    },
    /// The graph cannot be rewritten.
    #[error("the network could not be rewritten: {0}")]
    Graph(#[from] GraphError),
    /// tract has no fast kernels for lower precisions.
    #[error(
        "--precision {precision} is compared with fp32 on ONNX Runtime, and {runs} runs, which takes \
         many times as long in it; `pip install onnxruntime` or --ort-lib PATH mends that"
    )]
    NeedsOnnxRuntime {
        /// What was asked for.
        precision: Precision,
        /// What runs.
        runs: String,
    },
    /// Nothing to calibrate on.
    #[error(
        "--precision int8 needs to see which numbers the network computes: name a folder of some \
         hundred typical images with --calibrate DIR"
    )]
    NeedsImages,
    /// Not one image of the folder can be read.
    #[error("not one of the {count} samples in --calibrate can be read; the first: {first}")]
    Unreadable {
        /// How many there are.
        count: usize,
        /// What is wrong with the first.
        first: String,
    },
    /// The network cannot be run for calibration, or computes something that is no number.
    #[error("calibration: {0}")]
    Calibration(String),
    /// Labels and images have nothing in common.
    #[error("no image of --calibrate has a line in --labels; its first column holds their ids")]
    Unlabelled,
    /// Labels that cannot be judged by.
    #[error("--labels: {0}")]
    Judgement(String),
    /// float16 answers something else.
    #[error(
        "in float16 a probability differs by {difference:.1e} from float32, more than \
         {FP16_TOLERANCE:.0e}; the file was not written, export it with --precision fp32"
    )]
    Rounded {
        /// Largest difference of a probability.
        difference: f32,
    },
    /// 8 bits answer something else.
    #[error(
        "in 8 bits {:.0}% of the decisions are others, by more than 0.1 (at most {:.0}% are \
         accepted); the file was not written. Calibrate on more and on typical images, or export it \
         with --precision fp16",
        lost * 100.0, INT8_LOST * 100.0
    )]
    Drifted {
        /// Share of such decisions.
        lost: f64,
    },
}

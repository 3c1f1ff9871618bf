//! Errors of engines and models.

use std::path::PathBuf;

/// Why an engine cannot be started, a model not be loaded or a batch not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// ONNX Runtime is required but was not found.
    #[error(
        "{reason} needs ONNX Runtime, which was not found. Searched:\n  {}\n\
         hint: install it with `pip install {package}`, or name the library with --ort-lib PATH",
        .tried.join("\n  ")
    )]
    NoRuntime {
        /// The option that requires it: `--engine onnxruntime`, `--device cuda:0`.
        reason: String,
        /// The Python package that contains it.
        package: &'static str,
        /// Each searched place, and what was found there.
        tried: Vec<String>,
    },
    /// An explicitly named library cannot be used.
    #[error(
        "{origin}: `{}` cannot be used as ONNX Runtime: {reason}\n\
         hint: name the file `libonnxruntime.so.1.*` of ONNX Runtime 1.{minimum} or newer",
        .path.display()
    )]
    Library {
        /// `--ort-lib` or `ORT_DYLIB_PATH`.
        origin: &'static str,
        path: PathBuf,
        reason: String,
        /// The oldest supported minor version.
        minimum: u32,
    },
    /// The library was loaded, but did not start.
    #[error("{engine} did not start: {reason}")]
    Start {
        /// The engine, with its path.
        engine: String,
        reason: String,
    },
    /// The device is not available. There is no silent fallback to the CPU.
    #[error("--device {device} is not available with {engine}: {reason}")]
    Device {
        /// The device, as on the command line.
        device: String,
        /// The engine, with its path.
        engine: String,
        reason: String,
    },
    /// The file of `--engine-config` is invalid.
    #[error("--engine-config {}: {reason}", .path.display())]
    Config {
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// `--intra-threads` does not fit the engine.
    #[error("--intra-threads: {0}")]
    IntraThreads(String),
    /// A run or a checkpoint was named where an exported model is needed.
    #[error(
        "{flag} {path}: not an ONNX file\nhint: if it is a run or a checkpoint, export it first: \
         `rgby export --from {path} --out model.onnx`",
        path = .path.display()
    )]
    NotOnnx {
        /// The option that names it.
        flag: &'static str,
        path: PathBuf,
    },
    /// The process already runs another engine.
    #[error("cannot start {wanted}: this process already runs {running}")]
    AlreadyStarted { wanted: String, running: String },
    /// rgby cannot run the model.
    #[error("{}: {reason}", .path.display())]
    Model {
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// The engine failed on a batch, or returned values that are not probabilities.
    #[error("{}: the engine failed on a batch: {reason}", .path.display())]
    Run { path: PathBuf, reason: String },
}

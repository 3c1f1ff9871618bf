//! What can go wrong between choosing an engine and getting probabilities from it.

use std::path::PathBuf;

/// Why an engine could not be started, a model not be loaded or a batch not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// ONNX Runtime is needed and was not found.
    #[error(
        "ONNX Runtime is needed for {reason} and was not found. Looked at:\n  {}\n\
         Install it with `pip install {package}`, or name the library with --ort-lib PATH",
        .tried.join("\n  ")
    )]
    NoRuntime {
        /// What asked for it: `--engine onnxruntime`, `--device cuda:0`.
        reason: String,
        /// The Python package that would bring it.
        package: &'static str,
        /// Each place that was looked at, and what was there.
        tried: Vec<String>,
    },
    /// A library that was named explicitly cannot be used.
    #[error(
        "{origin}: `{}` cannot be used as ONNX Runtime: {reason}. Name the file \
         `libonnxruntime.so.1.*` of ONNX Runtime 1.{minimum} or newer",
        .path.display()
    )]
    Library {
        /// Who named it: `--ort-lib` or `ORT_DYLIB_PATH`.
        origin: &'static str,
        /// The library.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The oldest minor version that will do.
        minimum: u32,
    },
    /// The library loaded, but would not start.
    #[error("{engine} did not start: {reason}")]
    Start {
        /// The engine, with its path.
        engine: String,
        /// Its own message.
        reason: String,
    },
    /// The device cannot be had. Never answered with a silent CPU run.
    #[error("--device {device} cannot be had from {engine}: {reason}")]
    Device {
        /// The device, as on the command line.
        device: String,
        /// The engine, with its path.
        engine: String,
        /// What is missing and how to mend it.
        reason: String,
    },
    /// The file of `--engine-config` is not what it should be.
    #[error("--engine-config {}: {reason}", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the mend.
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
    /// An engine is chosen once per process, and another one was asked for later.
    #[error("{wanted} was asked for, but this process already runs {running}")]
    AlreadyStarted {
        /// What was asked for.
        wanted: String,
        /// What is running.
        running: String,
    },
    /// The file is not a model that rgby can run.
    #[error("{}: {reason}", .path.display())]
    Model {
        /// The model file.
        path: PathBuf,
        /// What is wrong, and the mend.
        reason: String,
    },
    /// The engine failed on a batch, or answered with something that is no probability.
    #[error("{}: the engine failed on a batch: {reason}", .path.display())]
    Run {
        /// The model file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

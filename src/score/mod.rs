//! Scoring: a model file and a folder of images in, probabilities and predictions out.
//!
//! [`Runtime`] finds and starts ONNX Runtime or the embedded tract engine, once per process;
//! [`ModelFile`] reads and checks a model before any engine sees it; [`OrtEngine`] runs it behind
//! the small [`Engine`] trait; [`score`] decodes and infers side by side; [`output`] writes the
//! result.

mod bench;
mod choice;
mod engine;
mod error;
mod locate;
mod model;
pub mod output;
mod parts;
mod pipeline;
mod runtime;

pub use bench::{
    BatchSpeed, BenchError, EndToEndSpeed, PrepareSpeed, ScoreBench, ScoreSpeed, SessionSpeed,
};
pub use choice::{Device, EngineChoice, RuntimeOptions};
pub use engine::{Engine, OrtEngine, OrtSession};
pub use error::EngineError;
pub use model::{INPUT_NAME, ModelFile, OUTPUT_NAME};
pub use parts::{Parts, PartsError, RunKey};
pub use pipeline::{
    BatchScores, Failure, PipelineOptions, ScoreError, ScoreTable, Sink, score, score_to,
};
pub use runtime::{Runtime, Workers};

//! Scoring: a model file and a folder of images in, probabilities and predictions out.
//!
//! [`Runtime`] finds and starts ONNX Runtime or the embedded tract engine, once per process;
//! [`ModelFile`] reads and checks a model before any engine sees it; [`OrtEngine`] runs it behind
//! the small [`Engine`] trait, an [`Ensemble`] several of them; [`score`] decodes and infers side
//! by side; [`output`] writes the result, a [`ResultManifest`] says of what it is, and [`merge()`]
//! joins those of several [`Shard`]s; [`stream`] carries samples and probabilities through pipes;
//! [`ScoreBench`] measures all that.

mod bench;
mod buffer;
mod choice;
mod config;
mod copies;
mod cuda;
mod engine;
mod ensemble;
mod error;
mod locate;
mod manifest;
mod merge;
mod model;
pub mod model_metadata;
mod occlusion;
pub mod output;
mod parts;
mod pipeline;
mod run_key;
mod runtime;
mod session;
mod shard;
mod split;
pub mod stream;
mod views;

pub use bench::{
    BatchSpeed, BenchError, EndToEndSpeed, PrepareSpeed, ScoreBench, ScoreSpeed, SessionSpeed,
    prepare_for,
};
pub use buffer::Buffer;
pub use choice::{Device, Devices, EngineChoice, RuntimeOptions};
pub use config::{
    ArenaExtend, ConvSearch, CudaConfig, EngineConfig, Optimization, SessionConfig, TensorRtConfig,
};
pub use copies::PartCopies;
pub use engine::{Answer, Engine, OrtEngine};
pub use ensemble::Ensemble;
pub use error::EngineError;
pub use manifest::{Decision, ManifestError, ResultKind, ResultManifest, manifest_path};
pub use merge::{MergeError, Merged, merge};
pub use model::{INPUT_NAME, ModelFile, OUTPUT_NAME};
pub use occlusion::Occlusion;
pub use parts::{
    Form, MANIFEST, Parts, PartsError, embedding_names, folder_of as parts_folder, is_unfinished,
    remove_leftovers,
};
pub use pipeline::{
    BatchScores, Failure, PipelineOptions, ScoreError, ScoreTable, Sink, Source, score, score_to,
};
pub use run_key::{RunKey, hash_of_ids};
pub use runtime::{Runtime, Workers};
pub use session::{OrtSession, SessionOptions, Tensor};
pub use shard::Shard;
pub use split::{Split, SplitWish};
pub use views::Combine;

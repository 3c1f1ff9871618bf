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
mod config;
mod cuda;
mod engine;
mod engine_choice;
mod ensemble;
mod error;
mod library_search;
mod merge;
mod model;
pub mod model_metadata;
mod occlusion;
pub mod output;
mod pipeline;
mod remote_parts;
mod result_manifest;
mod result_parts;
mod run_key;
mod runtime;
mod session;
mod shard;
pub mod stream;
mod test_time_augmentation;
mod thread_plan;

pub use bench::{
    BatchSpeed, BenchError, EndToEndSpeed, ModelSpeed, PrepareSpeed, PreprocessSpeed, ScoreBench,
    ScoreSpeed, SessionSpeed,
};
pub use buffer::Buffer;
pub use config::{
    ArenaExtend, ConvSearch, CudaConfig, EngineConfig, Optimization, SessionConfig, TensorRtConfig,
};
pub use engine::{Engine, InferenceOutput, OrtEngine};
pub use engine_choice::{Device, Devices, EngineChoice, RuntimeOptions};
pub use ensemble::Ensemble;
pub use error::EngineError;
pub use merge::{MergeError, Merged, merge};
pub use model::{INPUT_NAME, ModelFile, OUTPUT_NAME};
pub use occlusion::Occlusion;
pub use pipeline::{
    BatchScores, Failure, PipelineOptions, ScoreError, ScoreSource, ScoreTable, Sink, score,
    score_to,
};
pub use remote_parts::RemoteParts;
pub use result_manifest::{
    Decision, ResultKind, ResultManifest, ResultManifestError, manifest_path,
};
pub use result_parts::{
    MANIFEST, PartFormat, PartsError, ResultParts, embedding_names, folder_of as parts_folder,
    is_unfinished, remove_leftovers,
};
pub use run_key::{RunKey, hash_of_ids};
pub use runtime::{Runtime, Workers};
pub use session::{OrtSession, SessionOptions, Tensor};
pub use shard::Shard;
pub use test_time_augmentation::TtaCombination;
pub use thread_plan::{ThreadPlan, ThreadRequest};

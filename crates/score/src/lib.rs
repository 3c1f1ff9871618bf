//! Scoring: a model file and a folder of images in, probabilities and predictions out.
//!
//! [`Runtime`] finds and starts ONNX Runtime or the embedded tract engine, once per process;
//! [`ModelFile`] reads and checks a model before any engine sees it; [`OrtEngine`] runs it behind
//! the small [`Engine`] trait, an [`Ensemble`] several of them; [`score_samples`] decodes and
//! infers side by side; [`output`] writes the result, a [`ResultManifest`] says of what it is, and
//! [`merge()`] joins those of several [`Shard`]s; [`stream`] carries samples and probabilities
//! through pipes; [`ScoreBench`] measures all that.

mod bench;
mod buffer;
mod config;
mod cuda;
mod engine;
mod engine_choice;
mod engine_options;
mod ensemble;
mod error;
mod file_names;
mod library_search;
mod merge;
mod model;
pub mod model_metadata;
mod observer;
mod occlusion;
pub mod output;
mod pipeline;
mod remote_parts;
mod result_manifest;
mod result_parts;
mod run;
mod run_key;
mod run_options;
mod runtime;
mod scorer;
mod session;
mod session_handle;
mod shard;
mod staging;
pub mod stream;
mod test_time_augmentation;
mod thread_plan;
mod threshold;

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
pub use engine_options::{EngineOptions, StartedEngine, available_threads};
pub use ensemble::Ensemble;
pub use error::EngineError;
use file_names::beside;
pub use file_names::{MANIFEST, parts_folder};
pub use merge::{MergeConfig, MergeError, MergeReport, merge};
pub use model::{INPUT_NAME, ModelFile, OUTPUT_NAME};
pub use observer::ScoreObserver;
pub use occlusion::Occlusion;
pub use pipeline::{
    BatchScores, Failure, PipelineOptions, ScoreError, ScoreSource, ScoreTable, Sink,
    score_batches, score_samples,
};
pub use remote_parts::RemoteParts;
pub use result_manifest::{
    Decision, ResultKind, ResultManifest, ResultManifestError, manifest_path,
};
pub use result_parts::{
    PartFormat, PartsError, ResultParts, embedding_names, is_unfinished, remove_leftovers,
};
pub use run::{
    OutputFileError, ScoreConfig, ScoreFiles, ScoreModels, ScoreReport, ScoreRunError, ShardChoice,
    ShardError, ShardSelection, WorkerConfig, WorkerReport, run, run_worker,
};
pub use run_key::{RunKey, hash_of_ids};
pub use run_options::{KeyDifference, RecordedOptions, RunOptions};
pub use runtime::{Runtime, Workers};
pub use scorer::{Scorer, open_model, score_with};
pub use session::{OrtSession, SessionOptions, Tensor};
pub use shard::Shard;
pub use staging::{
    StagedFile, StagedFiles, StagingError, StoreImages, StoreImagesError, parse_location,
};
pub use test_time_augmentation::TtaCombination;
pub use thread_plan::{ThreadPlan, ThreadRequest};
pub use threshold::Threshold;

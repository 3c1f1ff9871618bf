//! Training: configs, the training loop, optimizers and checkpoints.

mod adadelta;
mod bench;
mod checkpoint;
mod checkpoint_interval;
mod config;
mod cpu_slices;
mod device;
mod did_you_mean;
mod ema;
mod error;
mod extractor;
mod feature_writer;
mod features;
mod gpu;
mod gradient_accumulation;
mod gradient_clipping;
mod job;
mod loss;
mod memory_estimate;
mod observer;
mod optimizer;
mod optimizer_state;
mod pixel_cache;
mod precision;
mod recalibrate;
mod run;
mod run_directory;
mod run_origin;
mod sample_order;
mod schedule;
mod start;
mod starting_point;
mod step;
mod step_loss;
mod torch;
#[cfg(feature = "torch")]
mod torch_rules;
mod weight_decay;

pub use adadelta::{Adadelta, AdadeltaConfig, AdadeltaState};
pub use bench::{TrainBench, TrainSpeed};
pub use checkpoint::{Checkpoint, CheckpointContents, CheckpointError, TrainProgress, resolve};
pub use checkpoint_interval::CheckpointInterval;
pub use config::{Config, ConfigError, DataConfig, TrainConfig, TrainStage};
pub use device::{DetectedDevice, TrainDevice};
pub use ema::Ema;
pub use error::TrainError;
pub use extractor::{
    Extracted, Extractor, ExtractorPool, FeatureBackend, FeatureCache, SelectFeatureBackend,
};
pub use job::{RunEnd, TrainJob};
pub use loss::{
    ClassWeights, Loss, LossConfig, LossName, MAX_BALANCED_WEIGHT, bce, focal, soft_f1,
};
pub use observer::TrainingObserver;
pub use optimizer::{OptimizerConfig, OptimizerConstants, OptimizerName};
pub use pixel_cache::{BuildCacheError, CacheReport, build_cache, open_or_build_cache};
pub use precision::TrainPrecision;
pub use recalibrate::RECALIBRATE_DEFAULT;
pub use run::train;
pub use run_origin::RunOrigin;
pub use schedule::{Decay, Schedule, ScheduleName};
pub use starting_point::{HeadChoice, StartingPoint, StartingPointError};
pub use step::{BatchContent, StepConfig, StepReport, Trainer};
pub use step_loss::StepLoss;
pub use torch::TorchDevice;

//! Training: configs, the loop, optimizers and checkpoints.

mod accumulate;
mod adadelta;
mod bench;
mod checkpoint;
mod checkpoint_interval;
mod config;
mod device;
mod ema;
mod error;
mod features;
mod gpu;
mod gradient_clipping;
mod job;
mod loss;
mod losses;
mod memory_estimate;
mod nearest;
mod one_pass;
mod optimizer;
mod pixel_cache;
mod plan;
mod precision;
mod recalibrate;
mod run;
mod run_directory;
mod run_origin;
mod schedule;
mod start;
mod starting_point;
mod state;
mod step;
mod weight_decay;

pub use adadelta::{Adadelta, AdadeltaConfig, AdadeltaState};
pub use bench::{TrainBench, TrainSpeed};
pub use checkpoint::{Checkpoint, CheckpointContents, CheckpointError, TrainProgress, resolve};
pub use checkpoint_interval::CheckpointInterval;
pub use config::{Config, ConfigError, DataConfig, Stage, TrainConfig};
pub use device::{Found, TrainDevice};
pub use ema::Ema;
pub use error::TrainError;
pub use features::{Extractor, FeatureCache, MakeExtractor};
pub use job::{RunEnd, TrainJob, TrainingObserver};
pub use loss::{
    ClassWeights, Loss, LossConfig, LossName, MAX_BALANCED_WEIGHT, bce, focal, soft_f1,
};
pub use losses::StepLoss;
pub use optimizer::{Constants, OptimizerConfig, OptimizerName};
pub use pixel_cache::{BuildCacheError, CacheReport, build_cache, open_or_build_cache};
pub use precision::TrainPrecision;
pub use recalibrate::RECALIBRATE_DEFAULT;
pub use run::train;
pub use run_origin::RunOrigin;
pub use schedule::{Decay, Schedule, ScheduleName};
pub use starting_point::{HeadChoice, StartingPoint, StartingPointError};
pub use step::{BatchContent, StepReport, StepRule, Trainer};

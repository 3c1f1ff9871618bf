//! Training: configs, the loop, optimizers and checkpoints.

mod accumulate;
mod adadelta;
mod bench;
mod checkpoint;
mod clip;
mod config;
mod device;
mod ema;
mod error;
mod every;
mod features;
mod fit;
mod folder;
mod gpu;
mod job;
mod loss;
mod losses;
mod nearest;
mod one_pass;
mod optimizer;
mod origin;
mod plan;
mod precision;
mod recalibrate;
mod run;
mod schedule;
mod start;
mod state;
mod step;
mod weight_decay;

pub use adadelta::{Adadelta, AdadeltaConfig, AdadeltaState};
pub use bench::{TrainBench, TrainSpeed};
pub use checkpoint::{Checkpoint, CheckpointError, Progress, Saved, resolve};
pub use config::{Config, ConfigError, DataConfig, Stage, TrainConfig};
pub use device::{Found, TrainDevice};
pub use ema::Ema;
pub use error::TrainError;
pub use every::Every;
pub use features::{Extractor, FeatureCache, MakeExtractor};
pub use job::{Ended, Job, Watch};
pub use loss::{
    ClassWeights, Loss, LossConfig, LossName, MAX_BALANCED_WEIGHT, bce, focal, soft_f1,
};
pub use losses::StepLoss;
pub use optimizer::{Constants, OptimizerConfig, OptimizerName};
pub use origin::Origin;
pub use precision::Precision;
pub use recalibrate::RECALIBRATE_DEFAULT;
pub use run::train;
pub use schedule::{Decay, Schedule, ScheduleName};
pub use step::{Input, StepReport, StepRule, Trainer};

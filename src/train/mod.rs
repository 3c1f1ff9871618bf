//! Training: configs, the loop, optimizers and checkpoints.

mod adadelta;
mod checkpoint;
mod config;
mod device;
mod error;
mod folder;
mod loss;
mod optimizer;
mod run;
mod state;
mod step;

pub use adadelta::{Adadelta, AdadeltaConfig, AdadeltaState};
pub use checkpoint::{Checkpoint, CheckpointError, Progress, resolve};
pub use config::{Config, ConfigError, DataConfig, TrainConfig};
pub use device::TrainDevice;
pub use error::TrainError;
pub use loss::bce_with_logits;
pub use optimizer::{Constants, OptimizerConfig, OptimizerName};
pub use run::{Ended, Job, Watch, train};
pub use state::optimizer_bytes;
pub use step::{StepReport, Trainer};

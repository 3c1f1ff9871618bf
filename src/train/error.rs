//! Why a run ended early.

use super::CheckpointError;
use crate::data::CacheError;
use crate::imaging::SampleError;
use crate::model::FreezeError;
use crate::report::ReportError;

/// Why a run ended early. What was reached is in `checkpoints/last`.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// Checkpoint trouble.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint could not be written.
    #[error(
        "{0}; every earlier checkpoint is whole: make room or mend the folder, then go on with \
         --resume"
    )]
    Unsaved(#[source] CheckpointError),
    /// A sample could not be read.
    #[error("{0}; mend or remove it from the labels file, then go on with --resume")]
    Sample(#[from] SampleError),
    /// The pixel cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The features of a frozen backbone cannot be computed or kept.
    #[error("features of the frozen part: {0}; --feature-cache off does without them")]
    Features(String),
    /// A batch is too large for this machine.
    #[error(
        "train.batch_size = {batch} would need about {needed:.1} GB of memory, {free:.1} GB are \
         free: {mend}"
    )]
    Memory {
        /// Samples of the batch.
        batch: usize,
        /// Gigabytes that a step with it would take.
        needed: f64,
        /// Gigabytes that are free.
        free: f64,
        /// What would fit.
        mend: String,
    },
    /// The run's folder cannot be used.
    #[error("{path}: {reason}")]
    Folder {
        /// The folder or file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Plots or metrics could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A stage freezes what is not there.
    #[error("train.stages: {0}")]
    Freeze(#[from] FreezeError),
    /// The loss is not a number.
    #[error(
        "the loss became {loss} at epoch {epoch}, step {step} (first sample of the batch: {id}); \
         lower optimizer.lr, and retrain from the last good checkpoint"
    )]
    Diverged {
        /// The loss.
        loss: f64,
        /// Epoch, from 1.
        epoch: u32,
        /// Step in the epoch, from 1.
        step: usize,
        /// The batch's first sample.
        id: String,
    },
    /// Too little data.
    #[error("{0}")]
    Data(String),
}

//! Errors of a training run.

use std::fmt::Display;
use std::path::Path;

use super::CheckpointError;
use crate::data::CacheError;
use crate::imaging::SampleError;
use crate::model::FreezeError;
use crate::report::ReportError;

/// An error that ended a training run. The last saved state is in `checkpoints/last`.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint could not be written. Earlier checkpoints are intact.
    #[error(
        "saving a checkpoint failed: {0}\n\
         hint: earlier checkpoints are intact; free disk space or fix the folder, then resume the \
         run with --resume"
    )]
    Save(CheckpointError),
    /// A sample could not be read.
    #[error(
        "{0}\n\
         hint: fix the image or remove the sample from the labels file, then resume the run with \
         --resume"
    )]
    Sample(SampleError),
    /// The pixel cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The features of a frozen backbone cannot be computed or stored.
    #[error(
        "computing the features of the frozen backbone failed: {0}\n\
         hint: --feature-cache off disables the feature cache"
    )]
    Features(String),
    /// A batch does not fit into memory.
    #[error(
        "train.batch_size = {batch} needs about {needed:.1} GB of memory, but only {free:.1} GB \
         are free\nhint: {hint}"
    )]
    Memory {
        /// Batch size in samples.
        batch: usize,
        /// Estimated memory of a training step, in gigabytes.
        needed: f64,
        /// Available memory, in gigabytes.
        free: f64,
        /// Settings that would fit.
        hint: String,
    },
    /// The device does not support a setting of the config.
    #[error("{0}")]
    Unsupported(String),
    /// The run directory cannot be used.
    #[error("{path}: {reason}")]
    Folder { path: String, reason: String },
    /// Plots or metrics could not be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A stage freezes parameters that the network does not have.
    #[error("train.stages: {0}")]
    Freeze(FreezeError),
    /// The loss is infinite or not a number.
    #[error(
        "the loss became {loss} at epoch {epoch}, step {step} (first sample of the batch: {id})\n\
         hint: lower optimizer.lr and retrain from the last good checkpoint"
    )]
    Diverged {
        loss: f64,
        /// Epoch, from 1.
        epoch: u32,
        /// Step in the epoch, from 1.
        step: usize,
        /// Id of the batch's first sample.
        id: String,
    },
    /// The data set is unusable, for example because the split leaves no training samples.
    #[error("{0}")]
    Data(String),
}

/// Returns the message of `error` without its hint, for logs and reports.
pub(super) fn without_hint(error: &dyn Display) -> String {
    let message = error.to_string();
    let (message, _) = message.split_once("\nhint: ").unwrap_or((&message, ""));
    message.to_owned()
}

// `#[from]` would make the cause a source too, and the terminal would print it twice.
impl From<SampleError> for TrainError {
    fn from(error: SampleError) -> Self {
        Self::Sample(error)
    }
}

impl From<FreezeError> for TrainError {
    fn from(error: FreezeError) -> Self {
        Self::Freeze(error)
    }
}

/// Returns the error for a file or folder of the run directory.
pub(super) fn folder_error(path: &Path, reason: impl Display) -> TrainError {
    TrainError::Folder {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

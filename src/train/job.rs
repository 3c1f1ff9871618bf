//! The input, the observer and the outcome of a training run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;

use super::{CheckpointInterval, Config, FeatureCache, RunOrigin, StepReport};
use crate::data::{Dataset, PixelCache};
use crate::model::WeightTransfer;
use crate::report::{EpochRow, TimingRow};

/// Everything that [`train`](super::train) needs.
pub struct TrainJob<'a> {
    /// Resolved config.
    pub config: Config,
    /// Samples and labels.
    pub dataset: Arc<Dataset>,
    /// Decoded and resized pixels of the samples; without it, the image files are read.
    pub cache: Option<Arc<PixelCache>>,
    /// Cache for the features of a frozen backbone; without it, each step computes them again.
    pub features: Option<FeatureCache<'a>>,
    /// Checkpoint to start from and the weights to transfer; without it, random weights.
    pub from: Option<(PathBuf, WeightTransfer)>,
    /// Sources of data and weights, for the run's report.
    pub origin: RunOrigin,
    /// Number of training samples used to recalibrate BatchNorm before a new run; 0 for none.
    pub recalibrate: usize,
    /// Run directory.
    pub out: PathBuf,
    /// Whether to resume the run in `out`.
    pub resume: bool,
    /// How often `checkpoints/last` is written within an epoch; if absent, only at its end.
    pub checkpoint_every: Option<CheckpointInterval>,
    pub device: Device,
    /// If set by another thread, the run saves its state and ends after the current step.
    pub stop: &'a AtomicBool,
}

/// Receives the progress of a run.
pub trait TrainingObserver {
    /// Called once, when the run directory exists. `_done` is the number of epochs that a resumed
    /// run has finished.
    fn started(&self, _done: u32) {}
    /// Called after each step.
    fn step(&self, report: &StepReport);
    /// Called after each batch while the features of a frozen backbone are computed: `_done` of
    /// `_all` rows.
    fn extracted(&self, _done: usize, _all: usize) {}
    /// Called after each epoch.
    fn epoch(&self, row: &EpochRow, timing: &TimingRow);
    /// Called with a one-line message for the user.
    fn note(&self, text: &str);
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All epochs are done.
    Finished,
    /// [`TrainJob::stop`] was set; the run can be resumed.
    Stopped,
}

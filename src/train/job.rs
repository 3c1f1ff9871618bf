//! The input, the observer and the outcome of a training run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;

use super::{CheckpointInterval, Config, FeatureCache, RunOrigin, StartingPoint};
use crate::data::{Dataset, PixelCache};

/// Everything that [`train`](super::train) needs.
pub struct TrainJob<'a> {
    /// Resolved config.
    pub config: Config,
    /// Samples and labels.
    pub dataset: Arc<Dataset>,
    /// Decoded and resized pixels of the samples; without it, the image files are read.
    pub cache: Option<Arc<PixelCache>>,
    /// Cache for the features of a frozen backbone; without it, each step computes them again.
    pub features: Option<FeatureCache>,
    /// Weights to start from; random weights if absent. Not used by a resumed run.
    pub from: Option<StartingPoint>,
    /// Sources of data and weights, for the run's report.
    pub origin: RunOrigin,
    /// Number of training samples for recalibrating BatchNorm before the first step; 0 disables it.
    /// If absent, 256 for a starting point with folded BatchNorm, else 0.
    pub recalibrate: Option<usize>,
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

impl<'a> TrainJob<'a> {
    /// Returns a new run with random weights, without caches and intermediate checkpoints.
    #[must_use]
    pub fn new(
        config: Config,
        dataset: Arc<Dataset>,
        out: PathBuf,
        device: Device,
        stop: &'a AtomicBool,
    ) -> Self {
        Self {
            config,
            dataset,
            cache: None,
            features: None,
            from: None,
            origin: RunOrigin::default(),
            recalibrate: None,
            out,
            resume: false,
            checkpoint_every: None,
            device,
            stop,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All epochs are done.
    Finished,
    /// [`TrainJob::stop`] was set; the run can be resumed.
    Stopped,
}

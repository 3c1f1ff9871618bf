//! What a run is told, what it tells, and how it ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;

use super::{CheckpointInterval, Config, FeatureCache, RunOrigin, StartingPoint, StepReport};
use crate::data::{Dataset, PixelCache};
use crate::report::{EpochRow, TimingRow};

/// What to train, on what, into which folder.
pub struct TrainJob<'a> {
    /// The resolved config.
    pub config: Config,
    /// Samples and labels.
    pub dataset: Arc<Dataset>,
    /// The samples' pixels, decoded and resized; without it they come from the image files.
    pub cache: Option<Arc<PixelCache>>,
    /// Where the features of a frozen backbone are kept; without it they are computed again in
    /// each step.
    pub features: Option<FeatureCache<'a>>,
    /// Weights to start from; random weights if absent. Not used by a resumed run.
    pub from: Option<StartingPoint>,
    /// Where all that comes from, for the run's page.
    pub origin: RunOrigin,
    /// Number of training samples for recalibrating BatchNorm before the first step; 0 disables it.
    /// If absent, 256 for a starting point with folded BatchNorm, else 0.
    pub recalibrate: Option<usize>,
    /// The run's folder.
    pub out: PathBuf,
    /// Goes on with the run in `out`.
    pub resume: bool,
    /// How often `checkpoints/last` is written within an epoch; at its end only if absent.
    pub checkpoint_every: Option<CheckpointInterval>,
    /// Where to compute.
    pub device: Device,
    /// Set from outside, it ends the run after the step under way, with everything saved.
    pub stop: &'a AtomicBool,
}

/// Sees a run as it goes.
pub trait TrainingObserver {
    /// Once, when the run's folder is there; so many epochs of a resumed run are done.
    fn started(&self, _done: u32) {}
    /// After each step.
    fn step(&self, report: &StepReport);
    /// After each batch of the pass that computes a frozen backbone's features, so many of all.
    fn extracted(&self, _done: usize, _all: usize) {}
    /// After each epoch.
    fn epoch(&self, row: &EpochRow, timing: &TimingRow);
    /// Something worth a line.
    fn note(&self, text: &str);
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All epochs are done.
    Finished,
    /// It was told to stop, and can be resumed.
    Stopped,
}

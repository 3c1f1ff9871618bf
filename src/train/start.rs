//! The state in which a run starts: new, from given weights, or resumed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::optim::ModuleOptimizer;

use super::error::{folder_error, without_hint};
use super::recalibrate::{RECALIBRATE_DEFAULT, recalibrate};
use super::{
    Checkpoint, CheckpointError, Ema, TrainError, TrainJob, TrainProgress, TrainingObserver,
};
use crate::data::{SampleSource, epoch_order};
use crate::model::{Classifier, freeze};
use crate::model_metadata::Provenance;
use crate::report::{EpochRow, TimingRow, read_rows};

/// Everything of a run that training steps change.
pub(super) struct RunState {
    pub classifier: Classifier,
    pub ema: Option<Ema>,
    pub optimizer: ModuleOptimizer,
    pub progress: TrainProgress,
    pub provenance: Provenance,
    pub rows: Vec<EpochRow>,
    pub timing: Vec<TimingRow>,
}

/// Returns the state of a new run.
pub(super) fn begin(
    job: &TrainJob,
    training: &[usize],
    source: &Arc<SampleSource>,
    observer: &dyn TrainingObserver,
) -> Result<RunState, TrainError> {
    let mut classifier = fresh(job);
    let mut provenance = Provenance {
        rgby_version: env!("CARGO_PKG_VERSION").into(),
        ..Provenance::default()
    };
    let mut recalibration_samples = job.recalibrate.unwrap_or(0);
    if let Some(start) = &job.from {
        classifier = start.load(classifier)?;
        provenance = start.provenance.clone();
        if job.recalibrate.is_none() && start.unfolded > 0 {
            recalibration_samples = RECALIBRATE_DEFAULT;
        }
    }
    // Validates the names in all stages before the first epoch.
    for stage in &job.config.train.stages {
        classifier = freeze(classifier, &stage.freeze)?;
    }
    if recalibration_samples > 0 {
        // No epoch of training has this number.
        let mut samples = epoch_order(training, job.config.train.seed, u64::MAX - 1);
        samples.truncate(recalibration_samples);
        classifier = recalibrate(job, classifier, &samples, source, observer)?;
    }
    classifier = freeze(classifier, &[])?;
    let ema = job.config.train.ema;
    Ok(RunState {
        ema: ema.map(|decay| Ema::new(&classifier, decay)),
        classifier,
        optimizer: job.config.optimizer.init(),
        progress: TrainProgress {
            steps: provenance.steps,
            ..unstarted(job)
        },
        provenance,
        rows: Vec::new(),
        timing: Vec::new(),
    })
}

/// Returns the state of the run in [`TrainJob::out`] at its newest intact checkpoint.
pub(super) fn resume(
    job: &TrainJob,
    observer: &dyn TrainingObserver,
) -> Result<RunState, TrainError> {
    let checkpoints = job.out.join("checkpoints");
    let last = checkpoints.join("last");
    let (dir, checkpoint) = match Checkpoint::open(&last) {
        Ok(checkpoint) => (last, checkpoint),
        Err(error @ (CheckpointError::Damaged { .. } | CheckpointError::NotACheckpoint(_))) => {
            let Some((dir, checkpoint)) = newest_intact(&checkpoints) else {
                return Err(error.into());
            };
            observer.note(&format!(
                "{}; resuming from {}, the newest intact checkpoint",
                without_hint(&error),
                dir.display()
            ));
            (dir, checkpoint)
        }
        Err(error) => return Err(error.into()),
    };
    let progress = progress_of(&checkpoint, job)?;
    let (classifier, average) = Checkpoint::load_training(&dir, || fresh(job))?;
    let optimizer = Checkpoint::load_optimizer(&dir, job.config.optimizer.init())?;
    let (mut rows, mut timing) = (Vec::new(), Vec::new());
    if progress.epoch > 0 {
        rows = read_rows(&job.out.join("metrics.csv"))?;
        timing = read_rows(&job.out.join("timing.csv"))?;
        // A crash can happen between writing the row of an epoch and its checkpoint.
        rows.truncate(progress.epoch as usize);
        timing.truncate(progress.epoch as usize);
    }
    let decay = job.config.train.ema;
    Ok(RunState {
        ema: average
            .zip(decay)
            .map(|(average, decay)| Ema::new(&average, decay)),
        classifier,
        optimizer,
        progress,
        provenance: checkpoint.spec.provenance,
        rows,
        timing,
    })
}

/// Returns the undamaged checkpoint in `folder` with the most steps.
fn newest_intact(folder: &Path) -> Option<(PathBuf, Checkpoint)> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let checkpoint = Checkpoint::open(&entry.path()).ok()?;
            Some((entry.path(), checkpoint))
        })
        .max_by_key(|(_, checkpoint)| checkpoint.progress.as_ref().map(|p| p.steps))
}

/// Returns the progress of the checkpoint if it belongs to the same run and data.
fn progress_of(checkpoint: &Checkpoint, job: &TrainJob) -> Result<TrainProgress, TrainError> {
    let progress = checkpoint
        .progress
        .clone()
        .ok_or_else(|| folder_error(&job.out, "checkpoints/last is not from a training run"))?;
    if progress.data != unstarted(job).data {
        return Err(folder_error(
            &job.out,
            "the run was started on other samples, labels or --cache\nhint: resume it on the same data",
        ));
    }
    Ok(progress)
}

fn fresh(job: &TrainJob) -> Classifier {
    let config = &job.config;
    let device = config.train.with_gradients(&job.device);
    Classifier::new(&config.model, config.train.seed, &device)
}

fn unstarted(job: &TrainJob) -> TrainProgress {
    TrainProgress {
        data: match &job.cache {
            Some(cache) => format!("{}, pixels {}", job.dataset.fingerprint(), cache.checksum()),
            None => job.dataset.fingerprint(),
        },
        ..TrainProgress::default()
    }
}

//! Where a run starts: at new weights, at a checkpoint's, or where it stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::optim::ModuleOptimizer;

use super::error::without_hint;
use super::recalibrate::recalibrate;
use super::run_directory::refuse;
use super::{
    Checkpoint, CheckpointError, Ema, TrainError, TrainJob, TrainProgress, TrainingObserver,
};
use crate::data::SampleSource;
use crate::model::{Classifier, freeze};
use crate::model_metadata::Provenance;
use crate::report::{EpochRow, TimingRow, read_rows};

/// Everything of a run that a step changes.
pub(super) struct RunState {
    pub classifier: Classifier,
    pub ema: Option<Ema>,
    pub optimizer: ModuleOptimizer,
    pub progress: TrainProgress,
    pub provenance: Provenance,
    pub rows: Vec<EpochRow>,
    pub timing: Vec<TimingRow>,
}

/// A new run.
pub(super) fn begin(
    job: &TrainJob,
    training: &[usize],
    source: &Arc<SampleSource>,
    watch: &dyn TrainingObserver,
) -> Result<RunState, TrainError> {
    let mut classifier = fresh(job);
    let mut provenance = Provenance {
        rgby_version: env!("CARGO_PKG_VERSION").into(),
        ..Provenance::default()
    };
    if let Some((from, keep)) = &job.from {
        let checkpoint = Checkpoint::open(from)?;
        classifier = Checkpoint::load(from, classifier, *keep)?;
        provenance = checkpoint.spec.provenance;
    }
    // So that a wrong name shows before an epoch is spent.
    for stage in &job.config.train.stages {
        classifier = freeze(classifier, &stage.freeze)?;
    }
    if job.recalibrate > 0 {
        classifier = recalibrate(job, classifier, training, source, watch)?;
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

/// The run in [`TrainJob::out`], at its newest checkpoint that is whole.
pub(super) fn resume(job: &TrainJob, watch: &dyn TrainingObserver) -> Result<RunState, TrainError> {
    let checkpoints = job.out.join("checkpoints");
    let last = checkpoints.join("last");
    let (dir, checkpoint) = match Checkpoint::open(&last) {
        Ok(checkpoint) => (last, checkpoint),
        Err(error @ (CheckpointError::Damaged { .. } | CheckpointError::NotACheckpoint(_))) => {
            let Some((dir, checkpoint)) = newest_whole(&checkpoints) else {
                return Err(error.into());
            };
            watch.note(&format!(
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
        // A crash may fall between the row of an epoch and its checkpoint.
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

/// The checkpoint in `folder` with the most steps whose files are as they were written.
fn newest_whole(folder: &Path) -> Option<(PathBuf, Checkpoint)> {
    let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let checkpoint = Checkpoint::open(&entry.path()).ok()?;
            Some((entry.path(), checkpoint))
        })
        .max_by_key(|(_, checkpoint)| checkpoint.progress.as_ref().map(|p| p.steps))
}

/// Where the run stood, if it was the same run.
fn progress_of(checkpoint: &Checkpoint, job: &TrainJob) -> Result<TrainProgress, TrainError> {
    let progress = checkpoint
        .progress
        .clone()
        .ok_or_else(|| refuse(&job.out, "checkpoints/last is not from a training run"))?;
    if progress.data != unstarted(job).data {
        return Err(refuse(
            &job.out,
            "the run was started on other samples, labels or --cache; resume it on the same data",
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
            Some(cache) => format!("{}, pixels {}", job.dataset.fingerprint(), cache.seal()),
            None => job.dataset.fingerprint(),
        },
        ..TrainProgress::default()
    }
}

//! A training run, from the data set to the best checkpoint.

mod page;
mod save;
mod stages;

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::memory_estimate::check_memory;
use super::run_directory::{
    add_events, check_folder, event_file, lock_folder, make_folder, write_config, write_rows,
};
use super::sample_order::{TrainingSamples, split_file, split_samples};
use super::start::{begin, resume};
use super::step::StepConfig;
use super::step_loss::PendingLosses;
use super::{RunEnd, StepReport, TrainError, TrainJob, TrainProgress, Trainer, TrainingObserver};
use crate::data::{Augmenter, BatchLoader, LoadPlan, SampleSource, write_split};
use crate::metrics::{Labelled, evaluate};
use crate::model_metadata::Provenance;
use crate::report::{self, EpochRow, EventFile, TimingRow};

/// Minimum interval between two report pages; an epoch can be shorter than a write to a slow disk.
const PAGE_INTERVAL: Duration = Duration::from_secs(1);

/// Trains until all epochs are done or [`TrainJob::stop`] is set.
///
/// # Errors
///
/// [`TrainError`]; the last checkpoint is still usable.
pub fn train(job: TrainJob, observer: &dyn TrainingObserver) -> Result<RunEnd, TrainError> {
    let settings = &job.config.train;
    settings
        .configure(&job.device)
        .map_err(TrainError::Unsupported)?;
    let mut run = TrainingRun::open(job, observer)?;
    if !run.job.resume {
        // A run killed in its first epoch can then be resumed, and a full disk is detected at once.
        run.save("last")?;
        run.job.origin.write(&run.job.out)?;
        write_config(&run.job)?;
    }
    observer.started(run.progress.epoch);
    let result = run.all_epochs(observer);
    let page = run.write_page(TrainingRun::status(&result));
    let end = result?;
    page?;
    Ok(end)
}

/// Opens the source of the samples' pixels: the pixel cache or the image files.
fn open_source(job: &TrainJob) -> Result<SampleSource, TrainError> {
    let preprocess = job.config.preprocess();
    let cache_form = job.config.cache_form();
    let source = SampleSource::new(job.dataset.clone(), Arc::new(preprocess));
    match &job.cache {
        Some(cache) => source
            .with_cache(cache.clone(), &cache_form)
            .map_err(TrainError::Cache),
        None => Ok(source),
    }
}

struct TrainingRun<'a> {
    job: TrainJob<'a>,
    /// Locks the run directory.
    _lock: File,
    last_save: Instant,
    last_page: Option<Instant>,
    source: Arc<SampleSource>,
    /// The same samples as cached features of a frozen backbone.
    features: Option<Arc<SampleSource>>,
    /// First epoch of the stage for which `features` was decided.
    features_stage: Option<u32>,
    training: TrainingSamples,
    validation: Vec<usize>,
    trainer: Trainer,
    losses: PendingLosses,
    progress: TrainProgress,
    provenance: Provenance,
    rows: Vec<EpochRow>,
    timing: Vec<TimingRow>,
    events: EventFile,
}

impl<'a> TrainingRun<'a> {
    fn open(mut job: TrainJob<'a>, observer: &dyn TrainingObserver) -> Result<Self, TrainError> {
        check_folder(&job)?;
        let lock = job.resume.then(|| lock_folder(&job.out)).transpose()?;
        let config = &job.config;
        let (training, validation) = split_samples(&job)?;
        let source = Arc::new(open_source(&job)?);
        check_memory(config, &job.device)?;
        let start = if job.resume {
            resume(&job, observer)?
        } else {
            begin(&job, &training, &source, observer)?
        };
        // Frees weights that were converted in memory.
        job.from = None;
        let counts = job.dataset.class_counts_of(&training);
        let device = config.train.with_gradients(&job.device);
        let step_config = StepConfig::new(&config.train, &counts, training.len(), &device);
        let inputs = (config.model.channels.len(), config.model.input_size);
        let trainer = Trainer::new(
            start.classifier,
            start.optimizer,
            step_config,
            &device,
            inputs,
        )
        .with_ema(start.ema);
        let lock = match lock {
            Some(lock) => lock,
            None => make_folder(&job)?,
        };
        write_split(&split_file(&job), &job.dataset, &training, &validation)
            .map_err(|error| TrainError::Data(error.to_string()))?;
        if validation.is_empty() {
            observer.note("no validation split: metrics are computed on the training samples");
        }
        let training =
            TrainingSamples::new(&job.dataset, training, job.config.data.balance_threshold);
        if job.resume {
            job.origin = std::mem::take(&mut job.origin).resumed(&job.out)?;
        }
        Ok(Self {
            events: event_file(&job.out, start.progress.epoch + 1)?,
            losses: PendingLosses::for_device(&job.device),
            job,
            _lock: lock,
            last_save: Instant::now(),
            last_page: None,
            source,
            features: None,
            features_stage: None,
            training,
            validation,
            trainer,
            progress: start.progress,
            provenance: start.provenance,
            rows: start.rows,
            timing: start.timing,
        })
    }

    /// Trains and validates, epoch by epoch.
    fn all_epochs(&mut self, observer: &dyn TrainingObserver) -> Result<RunEnd, TrainError> {
        while self.has_next_epoch(observer) {
            if self.train_epoch(observer)? == RunEnd::Stopped {
                self.save("last")?;
                observer.note(&format!(
                    "stopped at epoch {}, step {}; resume with --resume",
                    self.progress.epoch + 1,
                    self.progress.step_in_epoch
                ));
                return Ok(RunEnd::Stopped);
            }
            let row = match self.validate() {
                Ok(row) => row,
                Err(error) => {
                    // The epoch's steps are done even if a validation sample cannot be read.
                    self.save("last")?;
                    return Err(error);
                }
            };
            self.finish_epoch(&row, observer)?;
        }
        Ok(RunEnd::Finished)
    }

    /// Returns whether another epoch follows.
    fn has_next_epoch(&self, observer: &dyn TrainingObserver) -> bool {
        let train = &self.job.config.train;
        let out_of_patience = train
            .patience
            .is_some_and(|patience| self.progress.since_best >= patience);
        if out_of_patience && self.progress.epoch < train.epochs {
            observer.note(&format!(
                "the validation loss did not improve for {} epochs: stopping early (train.patience)",
                self.progress.since_best
            ));
        }
        !out_of_patience && self.progress.epoch < train.epochs
    }

    /// Takes the remaining steps of the current epoch.
    fn train_epoch(&mut self, observer: &dyn TrainingObserver) -> Result<RunEnd, TrainError> {
        self.enter_stage(observer)?;
        self.use_features(observer)?;
        if self.job.stop.load(Ordering::Relaxed) {
            return Ok(RunEnd::Stopped);
        }
        let plan = self.plan();
        let steps = plan.len();
        let done = self.progress.step_in_epoch;
        let samples: Vec<usize> = plan.iter().map(Vec::len).collect();
        let data = &self.job.config.data;
        let mut loader = self.loader(LoadPlan {
            batches: plan.into_iter().skip(done).collect(),
            first_step: self.progress.steps,
            view: Augmenter::new(data.augment, self.job.config.train.seed).into(),
        });
        let start = Instant::now();
        let earlier = (self.progress.seconds, self.progress.waited);
        let mut samples_done = 0;
        while let Some(batch) = loader.next() {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.save("last")?;
                    return Err(error.into());
                }
            };
            let first = batch.indices[0];
            let train = &self.job.config.train;
            let number = self.step_number(steps);
            let lr = self.lr(number, steps);
            let loss = self.trainer.submit(batch, lr, number, train.seed);
            let step = self.progress.step_in_epoch + 1;
            samples_done += samples[step - 1];
            self.progress.step_in_epoch = step;
            self.progress.steps += 1;
            self.losses.push(loss, step, first);
            // The first loss of an epoch is shown at once; at its end all losses are needed.
            if self.losses.is_read_due() || self.losses.len() == step || step == steps {
                self.read_losses()?;
            }
            self.progress.seconds = earlier.0 + start.elapsed().as_secs_f64();
            self.progress.waited = earlier.1 + loader.waited().as_secs_f64();
            observer.step(&StepReport {
                epoch: self.progress.epoch + 1,
                step,
                steps,
                loss: self.progress.loss_sum / (step - self.losses.len()) as f64,
                images_per_s: samples_done as f64 / start.elapsed().as_secs_f64(),
            });
            if self.job.stop.load(Ordering::Relaxed) {
                return Ok(RunEnd::Stopped);
            }
            let interval = self.job.checkpoint_every;
            if interval.is_some_and(|it| it.is_due(self.progress.steps, self.last_save)) {
                self.save("last")?;
            }
        }
        Ok(RunEnd::Finished)
    }

    /// Reads the pending losses from the device.
    fn read_losses(&mut self) -> Result<(), TrainError> {
        let result = self.losses.read_into(&mut self.progress.loss_sum);
        result.map_err(|error| TrainError::Diverged {
            loss: error.loss,
            epoch: self.progress.epoch + 1,
            step: error.step,
            id: self.job.dataset.samples[error.first_sample].id.clone(),
        })
    }

    /// Returns the number of the next step in this run, from 0; `steps` is the length of an epoch.
    fn step_number(&self, steps: usize) -> u64 {
        u64::from(self.progress.epoch) * steps as u64 + self.progress.step_in_epoch as u64
    }

    /// Returns the learning rate of step `number` of this run.
    fn lr(&self, number: u64, steps: usize) -> f64 {
        let (config, steps) = (&self.job.config, steps as u64);
        let (first, stage) = config.train.stage((number / steps) as u32);
        let mut schedule = config.optimizer.schedule();
        schedule.lr = stage.lr.unwrap_or(schedule.lr);
        let number = number - u64::from(first) * steps;
        schedule.lr(number, u64::from(stage.epochs) * steps, steps)
    }

    /// Returns the sample indices of each step of the current epoch.
    fn plan(&self) -> Vec<Vec<usize>> {
        let epoch = u64::from(self.progress.epoch);
        self.training.epoch_steps(&self.job.config, epoch)
    }

    fn loader(&self, plan: LoadPlan) -> BatchLoader {
        let source = self.features.as_ref().unwrap_or(&self.source);
        BatchLoader::batches(source, plan, self.job.config.data.workers)
    }

    /// Computes loss and F1 on the validation samples, or on the training samples if there are
    /// none.
    fn validate(&mut self) -> Result<EpochRow, TrainError> {
        let held_out = !self.validation.is_empty();
        let indices = if held_out {
            &self.validation
        } else {
            &self.training.samples
        };
        let plan = indices
            .chunks(self.job.config.train.batch_size)
            .map(<[usize]>::to_vec)
            .take(self.job.config.train.validation_steps.unwrap_or(usize::MAX));
        let network = self.trainer.validation();
        let (mut probabilities, mut targets) = (Vec::new(), Vec::new());
        for batch in self.loader(LoadPlan::new(plan.collect())) {
            let batch = batch?;
            targets.extend_from_slice(&batch.targets);
            probabilities.extend(self.trainer.predict(&network, batch));
        }
        let classes = self.job.dataset.num_classes;
        let labelled =
            Labelled::new(&probabilities, &targets, classes).map_err(TrainError::Data)?;
        let evaluation = evaluate(&labelled, &vec![0.5; classes]);
        let steps = self.progress.step_in_epoch.max(1);
        Ok(EpochRow {
            epoch: self.progress.epoch + 1,
            train_loss: self.progress.loss_sum / steps as f64,
            valid_loss: Some(evaluation.loss),
            f1_mean: evaluation.macro_f1,
            f1_std: evaluation.f1_std,
            f1_min: evaluation.f1_min,
            f1_max: evaluation.f1_max,
            lr: self.lr(self.step_number(steps) - 1, steps),
        })
    }

    /// Records the epoch: metrics, report page, events, and the checkpoints `last` and `best`.
    fn finish_epoch(
        &mut self,
        row: &EpochRow,
        observer: &dyn TrainingObserver,
    ) -> Result<(), TrainError> {
        let improved = match (row.valid_loss, self.progress.best_loss) {
            (Some(loss), Some(best)) => loss < best,
            _ => true,
        };
        self.progress.since_best += 1;
        if improved {
            self.progress.best_loss = row.valid_loss;
            self.progress.since_best = 0;
        }
        let samples: usize = self.plan().iter().map(Vec::len).sum();
        let timing = TimingRow {
            epoch: row.epoch,
            seconds: self.progress.seconds,
            images_per_s: samples as f64 / self.progress.seconds.max(1e-9),
            waited: self.progress.waited,
        };
        self.progress = TrainProgress {
            epoch: row.epoch,
            step_in_epoch: 0,
            loss_sum: 0.0,
            seconds: 0.0,
            waited: 0.0,
            ..std::mem::take(&mut self.progress)
        };
        self.rows.push(row.clone());
        self.timing.push(timing.clone());
        write_rows(&self.job.out.join("metrics.csv"), &self.rows)?;
        write_rows(&self.job.out.join("timing.csv"), &self.timing)?;
        // Before saving `last`: a repeated epoch overwrites its events, a lost event stays lost.
        add_events(&mut self.events, &self.job.out, row, &timing)?;
        if improved {
            self.save("best")?;
        }
        self.keep_top(row.epoch)?;
        self.save("last")?;
        if self
            .last_page
            .is_none_or(|last| last.elapsed() >= PAGE_INTERVAL)
        {
            self.write_page(report::RunStatus::Running)?;
            self.last_page = Some(Instant::now());
        }
        observer.epoch(row, &timing);
        Ok(())
    }
}

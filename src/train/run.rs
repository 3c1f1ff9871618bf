//! A training run from data to best checkpoint.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;

use super::folder::{check_folder, make_folder, resumed, write_rows};
use super::{Checkpoint, Config, Progress, StepReport, TrainError, Trainer};
use crate::data::{Dataset, Loader, epoch_order};
use crate::imaging::Preprocess;
use crate::metrics::{Labelled, evaluate};
use crate::model::{Classifier, Keep};
use crate::report::{EpochRow, read_rows, training_curves};
use crate::spec::{ModelSpec, Provenance};

/// What to train, on what, into which folder.
pub struct Job<'a> {
    /// The resolved config.
    pub config: Config,
    /// Samples and labels.
    pub dataset: Arc<Dataset>,
    /// Checkpoint to start from, and what of it is kept; random weights without one.
    pub from: Option<(PathBuf, Keep)>,
    /// The run's folder.
    pub out: PathBuf,
    /// Goes on with the run in `out`.
    pub resume: bool,
    /// Where to compute.
    pub device: Device,
    /// Set from outside, it ends the run after the step under way, with everything saved.
    pub stop: &'a AtomicBool,
}

/// Sees a run as it goes.
pub trait Watch {
    /// After each step.
    fn step(&self, report: &StepReport);
    /// After each epoch.
    fn epoch(&self, row: &EpochRow);
    /// Something worth a line.
    fn note(&self, text: &str);
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// It was told to stop, and can be resumed.
    Stopped,
}

/// Trains until all epochs are done or [`Job::stop`] is set.
///
/// # Errors
///
/// [`TrainError`]; the last checkpoint stays usable.
pub fn train(job: Job, watch: &dyn Watch) -> Result<Ended, TrainError> {
    let mut run = Run::open(job, watch)?;
    if !run.job.resume {
        // So that a run killed in its first epoch can be resumed, and a full disk shows at once.
        run.save("last")?;
    }
    while run.progress.epoch < run.job.config.train.epochs {
        if run.train_epoch(watch)? == Ended::Stopped {
            run.save("last")?;
            watch.note(&format!(
                "stopped at epoch {}, step {}; go on with --resume",
                run.progress.epoch + 1,
                run.progress.step_in_epoch
            ));
            return Ok(Ended::Stopped);
        }
        let row = match run.validate() {
            Ok(row) => row,
            Err(error) => {
                // The epoch's steps are done, whatever is wrong with a validation sample.
                run.save("last")?;
                return Err(error);
            }
        };
        run.finish_epoch(&row, watch)?;
    }
    Ok(Ended::Finished)
}

struct Run<'a> {
    job: Job<'a>,
    dataset: Arc<Dataset>,
    preprocess: Arc<Preprocess>,
    training: Vec<usize>,
    validation: Vec<usize>,
    trainer: Trainer,
    progress: Progress,
    provenance: Provenance,
    rows: Vec<EpochRow>,
}

impl<'a> Run<'a> {
    fn open(job: Job<'a>, watch: &dyn Watch) -> Result<Self, TrainError> {
        let last = job.out.join("checkpoints").join("last");
        check_folder(&job)?;
        let dataset = job.dataset.clone();
        let config = &job.config;
        let (training, validation) = config.data.split.split(dataset.len(), config.train.seed);
        if training.is_empty() {
            return Err(TrainError::Data(
                "data.split leaves no training samples".into(),
            ));
        }
        let device = job.device.clone().autodiff();
        let mut classifier = Classifier::new(&config.model, config.train.seed, &device);
        let mut optimizer = config.optimizer.init();
        let mut progress = Progress {
            data: dataset.fingerprint(),
            ..Progress::default()
        };
        let mut provenance = Provenance {
            rgby_version: env!("CARGO_PKG_VERSION").into(),
            ..Provenance::default()
        };
        let mut rows = Vec::new();
        if job.resume {
            let checkpoint = Checkpoint::open(&last)?;
            classifier = Checkpoint::load(&last, classifier, Keep::All)?;
            optimizer = Checkpoint::load_optimizer(&last, optimizer)?;
            progress = resumed(&checkpoint, &progress, &job.out)?;
            provenance = checkpoint.spec.provenance;
            if progress.epoch > 0 {
                rows = read_rows(&job.out.join("metrics.csv"))?;
                // A crash may fall between the row of an epoch and its checkpoint.
                rows.truncate(progress.epoch as usize);
            }
        } else if let Some((from, keep)) = &job.from {
            let checkpoint = Checkpoint::open(from)?;
            classifier = Checkpoint::load(from, classifier, *keep)?;
            provenance = checkpoint.spec.provenance;
            progress.steps = provenance.steps;
        }
        let inputs = (config.model.channels.len(), config.model.input_size);
        let trainer = Trainer::new(
            classifier,
            optimizer,
            &job.device,
            config.optimizer.lr(),
            inputs,
        );
        let preprocess = Arc::new(config.preprocess());
        make_folder(&job)?;
        if validation.is_empty() {
            watch.note("no validation split: the metrics are those of the training samples");
        }
        Ok(Self {
            job,
            dataset,
            preprocess,
            training,
            validation,
            trainer,
            progress,
            provenance,
            rows,
        })
    }

    /// Takes the steps of the epoch under way that are not taken yet.
    fn train_epoch(&mut self, watch: &dyn Watch) -> Result<Ended, TrainError> {
        let plan = self.plan();
        let steps = plan.len();
        let done = self.progress.step_in_epoch;
        let samples: Vec<usize> = plan.iter().map(Vec::len).collect();
        let loader = self.loader(plan.into_iter().skip(done).collect());
        let (start, earlier) = (Instant::now(), self.progress.seconds);
        let mut taken = 0;
        for batch in loader {
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.save("last")?;
                    return Err(error.into());
                }
            };
            let first = batch.indices[0];
            // One dropout seed a step; the constant spreads neighbouring steps over all bits.
            let dropout = self.progress.steps.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let loss = self
                .trainer
                .step(batch, self.job.config.train.seed ^ dropout);
            let step = self.progress.step_in_epoch + 1;
            if !loss.is_finite() {
                return Err(TrainError::Diverged {
                    loss,
                    epoch: self.progress.epoch + 1,
                    step,
                    id: self.dataset.samples[first].id.clone(),
                });
            }
            taken += samples[step - 1];
            self.progress.step_in_epoch = step;
            self.progress.steps += 1;
            self.progress.loss_sum += loss;
            self.progress.seconds = earlier + start.elapsed().as_secs_f64();
            watch.step(&StepReport {
                epoch: self.progress.epoch + 1,
                step,
                steps,
                loss: self.progress.loss_sum / step as f64,
                images_per_s: taken as f64 / start.elapsed().as_secs_f64(),
            });
            if self.job.stop.load(Ordering::Relaxed) {
                return Ok(Ended::Stopped);
            }
        }
        Ok(Ended::Finished)
    }

    /// Sample indices of each step of the epoch under way, from seed and epoch alone.
    fn plan(&self) -> Vec<Vec<usize>> {
        let train = &self.job.config.train;
        let order = |pass: u64| epoch_order(&self.training, train.seed, pass);
        let epoch = u64::from(self.progress.epoch);
        let Some(steps) = train.steps_per_epoch else {
            return order(epoch)
                .chunks(train.batch_size)
                .map(<[usize]>::to_vec)
                .collect();
        };
        // A stream of shuffled passes over the set, cut into epochs of equal length.
        let count = self.training.len();
        let length = steps * train.batch_size;
        let start = epoch as usize * length;
        let passes = start / count..=(start + length - 1) / count;
        let stream: Vec<usize> = passes.flat_map(|pass| order(pass as u64)).collect();
        stream[start % count..][..length]
            .chunks(train.batch_size)
            .map(<[usize]>::to_vec)
            .collect()
    }

    fn loader(&self, plan: Vec<Vec<usize>>) -> Loader {
        let workers = self.job.config.data.workers;
        Loader::batches(self.dataset.clone(), self.preprocess.clone(), plan, workers)
    }

    /// Loss and F1 on the validation samples.
    fn validate(&mut self) -> Result<EpochRow, TrainError> {
        let held_out = !self.validation.is_empty();
        let indices = if held_out {
            &self.validation
        } else {
            &self.training
        };
        let plan = indices
            .chunks(self.job.config.train.batch_size)
            .map(<[usize]>::to_vec);
        let network = self.trainer.validation();
        let (mut probabilities, mut targets) = (Vec::new(), Vec::new());
        for batch in self.loader(plan.collect()) {
            let batch = batch?;
            targets.extend_from_slice(&batch.targets);
            probabilities.extend(self.trainer.predict(&network, batch));
        }
        let classes = self.dataset.num_classes;
        let labelled =
            Labelled::new(&probabilities, &targets, classes).map_err(TrainError::Data)?;
        let evaluation = evaluate(&labelled, &vec![0.5; classes]);
        let steps = self.progress.step_in_epoch.max(1);
        let samples: usize = self.plan().iter().map(Vec::len).sum();
        Ok(EpochRow {
            epoch: self.progress.epoch + 1,
            train_loss: self.progress.loss_sum / steps as f64,
            valid_loss: Some(evaluation.loss),
            f1_mean: evaluation.macro_f1,
            f1_std: evaluation.f1_std,
            f1_min: evaluation.f1_min,
            f1_max: evaluation.f1_max,
            images_per_s: samples as f64 / self.progress.seconds.max(1e-9),
            lr: self.job.config.optimizer.lr(),
            seconds: self.progress.seconds,
        })
    }

    /// Records the epoch: row, plots, `last`, and `best` if it is.
    fn finish_epoch(&mut self, row: &EpochRow, watch: &dyn Watch) -> Result<(), TrainError> {
        let better = match (row.valid_loss, self.progress.best_loss) {
            (Some(loss), Some(best)) => loss < best,
            _ => true,
        };
        if better {
            self.progress.best_loss = row.valid_loss;
        }
        self.progress = Progress {
            epoch: row.epoch,
            step_in_epoch: 0,
            loss_sum: 0.0,
            seconds: 0.0,
            ..std::mem::take(&mut self.progress)
        };
        self.rows.push(row.clone());
        write_rows(&self.job.out.join("metrics.csv"), &self.rows)?;
        if better {
            self.save("best")?;
        }
        self.save("last")?;
        training_curves(&self.rows, &self.job.out.join("plots"))?;
        watch.epoch(row);
        Ok(())
    }

    fn save(&mut self, name: &str) -> Result<(), TrainError> {
        let config = &self.job.config;
        self.provenance.steps = self.progress.steps;
        let spec = ModelSpec {
            arch: config.model.arch.name().into(),
            classes: config.model.classes.clone(),
            thresholds: vec![0.5; config.model.classes.len()],
            preprocess: (*self.preprocess).clone(),
            provenance: self.provenance.clone(),
        };
        let mut checkpoint = Checkpoint::new(config.model.clone(), spec);
        checkpoint.config = Some(config.clone());
        checkpoint.progress = Some(self.progress.clone());
        let dir = self.job.out.join("checkpoints").join(name);
        checkpoint.save(
            &dir,
            self.trainer.classifier(),
            Some(self.trainer.optimizer()),
        )?;
        Ok(())
    }
}

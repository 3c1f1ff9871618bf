//! Benchmark of training: the step alone, the loader alone, the whole loop.

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;

use super::step::StepConfig;
use super::{
    Config, RunOrigin, StepReport, TrainError, TrainJob, Trainer, TrainingObserver, train,
};
use crate::data::{Batch, BatchLoader, Dataset, LoadPlan, PixelCache, SampleSource, epoch_order};
use crate::memory;
use crate::model::Classifier;
use crate::report::{EpochRow, TimingRow};

/// Steps that are not measured: the first ones allocate memory, and compile kernels on a GPU.
const WARM_UP: usize = 2;

/// Result of a [`TrainBench`], in images per second.
#[derive(Debug, Clone, Copy)]
pub struct TrainSpeed {
    /// Training steps on one reused batch.
    pub step: f64,
    /// Loading batches from the pixel cache, without training.
    pub loader: f64,
    /// Loading batches from the image files, without training.
    pub decoder: f64,
    /// The loop of `rgby train` from the pixel cache, without validation and saving.
    pub train_loop: f64,
    /// Peak memory of the process up to the end of the first bare steps, bytes.
    pub step_peak: Option<usize>,
}

/// A benchmark of training.
pub struct TrainBench<'a> {
    /// The config of the run. `train.steps_per_epoch` steps are measured.
    pub config: Config,
    pub dataset: Arc<Dataset>,
    /// The pixels of `dataset`.
    pub cache: Arc<PixelCache>,
    pub device: Device,
    /// An empty folder for the run directory.
    pub folder: &'a Path,
}

impl TrainBench<'_> {
    /// Measures all parts.
    ///
    /// The bare step is measured before and after the loop, so that a change of the machine's speed
    /// affects both. The median step counts.
    ///
    /// # Errors
    ///
    /// A sample cannot be read, or the run fails.
    pub fn measure(&self) -> Result<TrainSpeed, TrainError> {
        let settings = &self.config.train;
        settings
            .configure(&self.device)
            .map_err(TrainError::Unsupported)?;
        let cached = self
            .files()
            .with_cache(self.cache.clone(), &self.config.cache_form())?;
        let mut steps = self.bare_steps()?;
        let step_peak = memory::peak();
        let loader = self.loader(&Arc::new(cached))?;
        let decoder = self.loader(&Arc::new(self.files()))?;
        let train_loop = self.loop_steps()?;
        steps.extend(self.bare_steps()?);
        let batch = self.config.train.step_size() as f64;
        Ok(TrainSpeed {
            step: batch / median(steps),
            loader,
            decoder,
            train_loop: batch / median(train_loop),
            step_peak,
        })
    }

    /// Returns the samples with pixels from the image files.
    fn files(&self) -> SampleSource {
        SampleSource::new(self.dataset.clone(), Arc::new(self.config.preprocess()))
    }

    fn steps(&self) -> usize {
        self.config.train.steps_per_epoch.unwrap_or(1)
    }

    /// Returns the images per second of a loader, over at least all steps and all samples.
    fn loader(&self, source: &Arc<SampleSource>) -> Result<f64, TrainError> {
        let all: Vec<usize> = (0..self.dataset.len()).collect();
        let batch = self.config.train.step_size();
        let least = (WARM_UP + self.steps()) * batch;
        let passes = least.div_ceil(all.len()) as u64;
        let stream: Vec<usize> = (0..passes).flat_map(|n| epoch_order(&all, 0, n)).collect();
        let plan = LoadPlan::new(stream.chunks(batch).map(<[usize]>::to_vec).collect());
        let start = Instant::now();
        for batch in BatchLoader::batches(source, plan, self.config.data.workers) {
            batch?;
        }
        Ok(stream.len() as f64 / start.elapsed().as_secs_f64())
    }

    /// Returns the seconds of each step on one reused batch.
    fn bare_steps(&self) -> Result<Vec<f64>, TrainError> {
        let config = &self.config;
        let device = config.train.with_gradients(&self.device);
        let counts = self.dataset.class_counts();
        let rule = StepConfig::new(&config.train, &counts, self.dataset.len(), &device);
        let mut trainer = Trainer::new(
            Classifier::new(&config.model, config.train.seed, &device),
            config.optimizer.init(),
            rule,
            &device,
            (config.model.channels.len(), config.model.input_size),
        );
        let batch = self.batch()?;
        let mut seconds = Vec::new();
        for step in 0..WARM_UP + self.steps() {
            let start = Instant::now();
            let loss = trainer.submit(batch.clone(), config.optimizer.lr(), step as u64, 0);
            // Reading the loss waits for the device.
            let _ = loss.read();
            seconds.push(start.elapsed().as_secs_f64());
        }
        Ok(seconds.split_off(WARM_UP))
    }

    /// Loads one batch.
    fn batch(&self) -> Result<Batch, TrainError> {
        let size = self.config.train.step_size();
        let indices = (0..self.dataset.len()).cycle().take(size).collect();
        let mut loader =
            BatchLoader::batches(&Arc::new(self.files()), LoadPlan::new(vec![indices]), 1);
        Ok(loader
            .next()
            .ok_or_else(|| TrainError::Data("no batch".into()))??)
    }

    /// Returns the seconds between the steps of a run.
    fn loop_steps(&self) -> Result<Vec<f64>, TrainError> {
        let stop = AtomicBool::new(false);
        let mut config = self.config.clone();
        config.train.epochs = 1;
        config.train.steps_per_epoch = Some(WARM_UP + self.steps());
        config.train.validation_steps = Some(1);
        let clock = StepClock::default();
        let job = TrainJob {
            config,
            dataset: self.dataset.clone(),
            cache: Some(self.cache.clone()),
            features: None,
            from: None,
            origin: RunOrigin::default(),
            recalibrate: Some(0),
            out: self.folder.join("run"),
            resume: false,
            checkpoint_every: None,
            device: self.device.clone(),
            stop: &stop,
        };
        train(job, &clock)?;
        let times = clock.steps.into_inner();
        let pairs = times.windows(2).skip(WARM_UP - 1);
        Ok(pairs
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect())
    }
}

/// Records the end of each step.
#[derive(Default)]
struct StepClock {
    steps: RefCell<Vec<Instant>>,
}

impl TrainingObserver for StepClock {
    fn step(&self, _: &StepReport) {
        self.steps.borrow_mut().push(Instant::now());
    }
    fn epoch(&self, _: &EpochRow, _: &TimingRow) {}
    fn note(&self, _: &str) {}
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

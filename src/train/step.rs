//! A training step: forward and backward pass, and the optimizer's update.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};

use super::gradient_accumulation::GradientAccumulator;
use super::gradient_clipping::clip_gradients;
use super::{Ema, Loss, StepLoss, TrainConfig};
use crate::data::Batch;
#[cfg(feature = "torch")]
use crate::model::fused::torch::{collect_updates, upload as upload_to_torch};
use crate::model::{Classifier, FreezeError, freeze};

/// Progress after a step.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Number of the step in its epoch, from 1.
    pub step: usize,
    /// Steps in an epoch.
    pub steps: usize,
    /// Mean loss of the epoch so far, over the steps whose losses have been read.
    pub loss: f64,
    /// Samples per second in this epoch.
    pub images_per_s: f64,
}

/// Invariant: [`Trainer::submit`] restores the classifier that it takes.
const PRESENT: &str = "the classifier is absent only inside a step";

/// Settings of a training step.
pub struct StepConfig {
    /// Loss to minimize.
    pub loss: Loss,
    /// Maximum global L2 norm of the gradient; no clipping if absent.
    pub clip_norm: Option<f64>,
    /// Number of samples in memory at a time; larger batches are split and accumulated.
    pub batch_size: usize,
}

impl StepConfig {
    /// Creates the settings for a run on `samples` training samples; `counts` `[K]` is their number
    /// in each class.
    pub(super) fn new(
        train: &TrainConfig,
        counts: &[usize],
        samples: usize,
        device: &Device,
    ) -> Self {
        Self {
            loss: Loss::new(&train.loss(), counts, samples, device),
            clip_norm: train.clip_norm,
            batch_size: train.batch_size,
        }
    }
}

/// A network, its optimizer and the averaged weights.
pub struct Trainer {
    /// `None` only during a step: the optimizer updates in place if it holds the only reference.
    classifier: Option<Classifier>,
    optimizer: ModuleOptimizer,
    config: StepConfig,
    ema: Option<Ema>,
    device: Device,
    /// Channels and side of the images.
    images: (usize, usize),
    input: BatchContent,
}

/// The content of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchContent {
    /// Images, `[N, C, S, S]`.
    Images,
    /// Outputs of [`Classifier::head_input`] for the images, `[N, L]`.
    Features,
}

impl Trainer {
    /// `classifier` must be on `device`, with gradients; inputs are `[N, channels, size, size]`.
    #[must_use]
    pub fn new(
        classifier: Classifier,
        optimizer: ModuleOptimizer,
        config: StepConfig,
        device: &Device,
        (channels, size): (usize, u32),
    ) -> Self {
        let device = device.clone().autodiff();
        Self {
            classifier: Some(classifier),
            optimizer,
            config,
            ema: None,
            device,
            images: (channels, size as usize),
            input: BatchContent::Images,
        }
    }

    /// Enables an average of the weights; [`validation`](Self::validation) then returns it.
    #[must_use]
    pub fn with_ema(mut self, ema: Option<Ema>) -> Self {
        self.ema = ema;
        self
    }

    /// Freezes the parameters whose names match one of `frozen`; all others train.
    ///
    /// # Errors
    ///
    /// A pattern that matches no name; the trainer cannot be used afterwards.
    ///
    /// # Panics
    ///
    /// If an earlier step panicked.
    pub fn freeze(&mut self, frozen: &[String]) -> Result<(), FreezeError> {
        let classifier = self.classifier.take().expect(PRESENT);
        self.classifier = Some(freeze(classifier, frozen)?);
        Ok(())
    }

    /// Replaces the optimizer and its state.
    pub fn set_optimizer(&mut self, optimizer: ModuleOptimizer) {
        self.optimizer = optimizer;
    }

    /// Sets the content of the following batches.
    pub fn set_input(&mut self, input: BatchContent) {
        self.input = input;
    }

    /// Returns the network under training.
    ///
    /// # Panics
    ///
    /// If an earlier step panicked.
    #[must_use]
    pub fn classifier(&self) -> &Classifier {
        self.classifier.as_ref().expect(PRESENT)
    }

    /// Returns the averaged network, if enabled.
    #[must_use]
    pub fn ema(&self) -> Option<&Classifier> {
        self.ema.as_ref().map(Ema::network)
    }

    /// Returns the optimizer with its state.
    #[must_use]
    pub fn optimizer(&self) -> &ModuleOptimizer {
        &self.optimizer
    }

    /// Takes step number `step`, from 0, and returns the mean loss of its samples before the
    /// update.
    ///
    /// `seed` and `step` determine the units that dropout removes.
    ///
    /// # Panics
    ///
    /// If the batch does not have the network's shape, or an earlier step panicked.
    pub fn step(&mut self, batch: Batch, lr: f64, step: u64, seed: u64) -> f64 {
        self.submit(batch, lr, step, seed).read()
    }

    /// Like [`step`](Self::step), but leaves the loss on the device and does not wait for it.
    ///
    /// # Panics
    ///
    /// As [`step`](Self::step).
    pub fn submit(&mut self, batch: Batch, lr: f64, step: u64, seed: u64) -> StepLoss {
        let classifier = self.classifier.take().expect(PRESENT);
        let mut gradients = GradientAccumulator::default();
        let mut losses = Vec::new();
        for (number, part) in batch.split(self.config.batch_size).into_iter().enumerate() {
            // The multiplication spreads adjacent step numbers over all bits.
            let position = step.wrapping_add((number as u64) << 48);
            self.device
                .seed(seed ^ position.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let count = part.indices.len();
            let (logits, targets) = self.logits(&classifier, part, &self.device);
            let loss = self.config.loss.forward(logits, targets);
            losses.push((loss.clone().without_autodiff(), count));
            let part = GradientsParams::from_grads(loss.backward(), &classifier);
            gradients.add(&classifier, part, count);
        }
        let mut gradients = gradients.take();
        if let Some(norm) = self.config.clip_norm {
            (gradients, _) = clip_gradients(&classifier, gradients, norm);
        }
        let classifier = collect_updates(|| self.optimizer.step(lr, classifier, gradients));
        if let Some(ema) = &mut self.ema {
            collect_updates(|| ema.update(&classifier, step));
        }
        self.classifier = Some(classifier);
        StepLoss::new(losses)
    }

    /// Returns the probabilities `[N, K]` of a batch, row by row, in inference mode.
    #[must_use]
    pub fn predict(&self, validation: &Classifier, batch: Batch) -> Vec<f32> {
        let (logits, _) = self.logits(validation, batch, &self.device.clone().without_autodiff());
        sigmoid(logits).into_data().iter::<f32>().collect()
    }

    /// Returns the network to deploy, in inference mode: the averaged network, if enabled.
    #[must_use]
    pub fn validation(&self) -> Classifier {
        self.ema()
            .map_or_else(|| self.classifier().valid(), Module::valid)
    }

    /// Returns logits and targets of a batch, `[N, K]` each.
    fn logits(
        &self,
        classifier: &Classifier,
        mut batch: Batch,
        device: &Device,
    ) -> (Tensor<2>, Tensor<2>) {
        let count = batch.indices.len();
        let classes = batch.targets.len() / count.max(1);
        let targets = std::mem::take(&mut batch.targets);
        let targets = upload(targets, [count, classes], device);
        let logits = match self.input {
            BatchContent::Images => classifier.logits(image_tensor(batch, self.images, device)),
            BatchContent::Features => {
                let shape = [count, batch.images.len() / count];
                classifier.head_logits(upload(batch.images, shape, device))
            }
        };
        (logits, targets)
    }
}

/// Returns a batch's images as a tensor `[N, channels, side, side]`.
pub(super) fn image_tensor(
    batch: Batch,
    (channels, side): (usize, usize),
    device: &Device,
) -> Tensor<4> {
    let shape = [batch.indices.len(), channels, side, side];
    upload(batch.images, shape, device)
}

/// Returns the values as a tensor on the device.
fn upload<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    #[cfg(feature = "torch")]
    if let Some(tensor) = upload_to_torch(&values, shape, device) {
        return tensor;
    }
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Runs `work`; only on libtorch are the updates of parameters collected.
#[cfg(not(feature = "torch"))]
fn collect_updates<T>(work: impl FnOnce() -> T) -> T {
    work()
}

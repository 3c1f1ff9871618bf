//! One step: a batch through the network, its gradients through the optimizer.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};

use super::accumulate::Accumulator;
use super::gradient_clipping::clip_gradients;
use super::{Ema, Loss, StepLoss, TrainConfig};
use crate::data::Batch;
use crate::model::{Classifier, FreezeError, freeze};

/// What a step came to.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Number of the step in its epoch, from 1.
    pub step: usize,
    /// Steps in an epoch.
    pub steps: usize,
    /// Mean loss of the epoch so far, over the steps whose losses were read.
    pub loss: f64,
    /// Samples a second in this epoch.
    pub images_per_s: f64,
}

/// [`Trainer::submit`] puts back what it takes.
const PRESENT: &str = "the classifier is absent only inside a step";

/// How a step is taken.
pub struct StepRule {
    /// What is minimised.
    pub loss: Loss,
    /// Greatest global norm of the gradient.
    pub clip_norm: Option<f64>,
    /// Samples in memory at a time.
    pub batch_size: usize,
}

impl StepRule {
    /// That of a run with the settings `train`, on `samples` samples; `counts` are those of each
    /// class.
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

/// A network under training.
pub struct Trainer {
    /// Taken out only while the optimizer rewrites it, which it can do in place if it alone has it.
    classifier: Option<Classifier>,
    optimizer: ModuleOptimizer,
    rule: StepRule,
    ema: Option<Ema>,
    device: Device,
    /// Channels and side of the images.
    images: (usize, usize),
    input: BatchContent,
}

/// What batches hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchContent {
    /// Images, `[N, C, S, S]`.
    Images,
    /// What [`Classifier::head_input`] made of them, `[N, L]`.
    Features,
}

impl Trainer {
    /// `classifier` must be on `device`, with gradients; inputs are `[N, channels, size, size]`.
    #[must_use]
    pub fn new(
        classifier: Classifier,
        optimizer: ModuleOptimizer,
        rule: StepRule,
        device: &Device,
        (channels, size): (usize, u32),
    ) -> Self {
        let device = device.clone().autodiff();
        Self {
            classifier: Some(classifier),
            optimizer,
            rule,
            ema: None,
            device,
            images: (channels, size as usize),
            input: BatchContent::Images,
        }
    }

    /// Keeps an average of the weights, which [`validation`](Self::validation) answers with.
    #[must_use]
    pub fn with_ema(mut self, ema: Option<Ema>) -> Self {
        self.ema = ema;
        self
    }

    /// Leaves the parameters whose names begin with one of `frozen` as they are, from now on.
    ///
    /// # Errors
    ///
    /// A beginning that no name has; the trainer cannot be used after that.
    ///
    /// # Panics
    ///
    /// If an earlier step panicked.
    pub fn freeze(&mut self, frozen: &[String]) -> Result<(), FreezeError> {
        let classifier = self.classifier.take().expect(PRESENT);
        self.classifier = Some(freeze(classifier, frozen)?);
        Ok(())
    }

    /// Goes on with another optimizer.
    pub fn set_optimizer(&mut self, optimizer: ModuleOptimizer) {
        self.optimizer = optimizer;
    }

    /// What the batches hold from now on.
    pub fn set_input(&mut self, input: BatchContent) {
        self.input = input;
    }

    /// The network as it stands.
    ///
    /// # Panics
    ///
    /// If an earlier step panicked.
    #[must_use]
    pub fn classifier(&self) -> &Classifier {
        self.classifier.as_ref().expect(PRESENT)
    }

    /// The average of the weights, if one is kept.
    #[must_use]
    pub fn ema(&self) -> Option<&Classifier> {
        self.ema.as_ref().map(Ema::network)
    }

    /// The optimizer with its state.
    #[must_use]
    pub fn optimizer(&self) -> &ModuleOptimizer {
        &self.optimizer
    }

    /// Takes step number `step`, from 0, and returns the samples' mean loss before it.
    ///
    /// `seed` and `step` decide which units dropout leaves out.
    ///
    /// # Panics
    ///
    /// If the batch is not of the network's shape, or an earlier step panicked.
    pub fn step(&mut self, batch: Batch, lr: f64, step: u64, seed: u64) -> f64 {
        self.submit(batch, lr, step, seed).read()
    }

    /// As [`step`](Self::step), but leaves the loss on the device and does not wait for it.
    ///
    /// # Panics
    ///
    /// As [`step`](Self::step).
    pub fn submit(&mut self, batch: Batch, lr: f64, step: u64, seed: u64) -> StepLoss {
        let classifier = self.classifier.take().expect(PRESENT);
        let mut gradients = Accumulator::default();
        let mut losses = Vec::new();
        for (number, part) in batch.split(self.rule.batch_size).into_iter().enumerate() {
            // The constant spreads neighbouring steps over all bits.
            let place = step.wrapping_add((number as u64) << 48);
            self.device
                .seed(seed ^ place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let count = part.indices.len();
            let (logits, targets) = self.logits(&classifier, part, &self.device);
            let loss = self.rule.loss.forward(logits, targets);
            losses.push((loss.clone().without_autodiff(), count));
            let part = GradientsParams::from_grads(loss.backward(), &classifier);
            gradients.add(&classifier, part, count);
        }
        let mut gradients = gradients.take();
        if let Some(norm) = self.rule.clip_norm {
            (gradients, _) = clip_gradients(&classifier, gradients, norm);
        }
        let classifier = self.optimizer.step(lr, classifier, gradients);
        if let Some(ema) = &mut self.ema {
            ema.update(&classifier, step);
        }
        self.classifier = Some(classifier);
        StepLoss::new(losses)
    }

    /// Probabilities `[N, K]` of a batch, row by row, in inference mode.
    #[must_use]
    pub fn predict(&self, validation: &Classifier, batch: Batch) -> Vec<f32> {
        let (logits, _) = self.logits(validation, batch, &self.device.clone().without_autodiff());
        sigmoid(logits).into_data().iter::<f32>().collect()
    }

    /// The network that is deployed, in inference mode: the average, if one is kept.
    #[must_use]
    pub fn validation(&self) -> Classifier {
        self.ema()
            .map_or_else(|| self.classifier().valid(), Module::valid)
    }

    /// Logits and targets of a batch, `[N, K]` each.
    fn logits(
        &self,
        classifier: &Classifier,
        mut batch: Batch,
        device: &Device,
    ) -> (Tensor<2>, Tensor<2>) {
        let count = batch.indices.len();
        let classes = batch.targets.len() / count.max(1);
        let targets = TensorData::new(std::mem::take(&mut batch.targets), [count, classes]);
        let logits = match self.input {
            BatchContent::Images => classifier.logits(image_tensor(batch, self.images, device)),
            BatchContent::Features => {
                let shape = [count, batch.images.len() / count];
                let features = TensorData::new(batch.images, shape);
                classifier.head_logits(Tensor::from_data(features, device))
            }
        };
        (logits, Tensor::from_data(targets, device))
    }
}

/// A batch's images, `[N, channels, side, side]`.
pub(super) fn image_tensor(
    batch: Batch,
    (channels, side): (usize, usize),
    device: &Device,
) -> Tensor<4> {
    let shape = [batch.indices.len(), channels, side, side];
    Tensor::from_data(TensorData::new(batch.images, shape), device)
}

//! One step: a batch through the network, its gradients through the optimizer.

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};

use super::bce_with_logits;
use crate::data::Batch;
use crate::model::Classifier;

/// What a step came to.
#[derive(Debug, Clone, Copy)]
pub struct StepReport {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Number of the step in its epoch, from 1.
    pub step: usize,
    /// Steps in an epoch.
    pub steps: usize,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Samples a second in this epoch.
    pub images_per_s: f64,
}

/// [`Trainer::step`] puts back what it takes.
const PRESENT: &str = "the classifier is absent only inside a step";

/// A network under training.
pub struct Trainer {
    /// Taken out only while the optimizer rewrites it, which it can do in place if it alone has it.
    classifier: Option<Classifier>,
    optimizer: ModuleOptimizer,
    device: Device,
    lr: f64,
    channels: usize,
    size: usize,
}

impl Trainer {
    /// `classifier` must be on `device.autodiff()`; inputs are `[N, channels, size, size]`.
    #[must_use]
    pub fn new(
        classifier: Classifier,
        optimizer: ModuleOptimizer,
        device: &Device,
        lr: f64,
        (channels, size): (usize, u32),
    ) -> Self {
        let device = device.clone().autodiff();
        Self {
            classifier: Some(classifier),
            optimizer,
            device,
            lr,
            channels,
            size: size as usize,
        }
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

    /// The optimizer with its state.
    #[must_use]
    pub fn optimizer(&self) -> &ModuleOptimizer {
        &self.optimizer
    }

    /// Takes one step and returns the batch's mean loss before it.
    ///
    /// `seed` decides which units dropout leaves out.
    ///
    /// # Panics
    ///
    /// If the batch is not of the network's shape, or an earlier step panicked.
    pub fn step(&mut self, batch: Batch, seed: u64) -> f64 {
        self.device.seed(seed);
        let (images, targets) = self.tensors(batch, &self.device);
        let classifier = self.classifier.take().expect(PRESENT);
        let loss = bce_with_logits(classifier.logits(images), targets);
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &classifier);
        self.classifier = Some(self.optimizer.step(self.lr, classifier, gradients));
        value
    }

    /// Probabilities `[N, K]` of a batch, row by row, in inference mode.
    #[must_use]
    pub fn predict(&self, validation: &Classifier, batch: Batch) -> Vec<f32> {
        let (images, _) = self.tensors(batch, &self.device.clone().without_autodiff());
        let data = validation.probabilities(images).into_data();
        data.iter::<f32>().collect()
    }

    /// The network in inference mode.
    #[must_use]
    pub fn validation(&self) -> Classifier {
        self.classifier().valid()
    }

    fn tensors(&self, mut batch: Batch, device: &Device) -> (Tensor<4>, Tensor<2>) {
        let count = batch.indices.len();
        let classes = batch.targets.len() / count.max(1);
        let targets = TensorData::new(std::mem::take(&mut batch.targets), [count, classes]);
        (
            image_tensor(batch, (self.channels, self.size), device),
            Tensor::from_data(targets, device),
        )
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

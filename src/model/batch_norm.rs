//! Batch normalisation with the running statistics of PyTorch and Keras.
//!
//! Burn's own layer keeps the biased batch variance; PyTorch and Keras normalise by the biased
//! variance but remember the unbiased one, `n/(n−1)` times as large. A network that goes on
//! training from their statistics has to keep to their rule.

use std::cell::RefCell;

use burn::module::{Module, Param};
use burn::tensor::module::{batch_norm, batch_norm_train};
use burn::tensor::{Device, Tensor};

use super::fused;
use super::statistic::Statistic;

/// Batch normalisation of `[N, C, H, W]` per channel (Ioffe and Szegedy 2015).
///
/// On an autodiff device the batch's own statistics normalise it and move the running ones:
/// `running ← running·(1−momentum) + batch·momentum`. On any other device the running statistics
/// normalise, as in `torch.nn.BatchNorm2d`'s eval mode. So they do everywhere once gamma takes no
/// gradient: a frozen layer answers as in inference and leaves its statistics alone, as in the
/// Keras of TensorFlow 2.
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    running_mean: Statistic,
    running_var: Statistic,
    epsilon: f64,
    momentum: f64,
}

impl BatchNorm2d {
    /// A layer for `features` channels with gamma 1, beta 0, mean 0 and variance 1.
    ///
    /// `momentum` is the share of the new batch in the running statistics, 0–1 (PyTorch's 0.1).
    #[must_use]
    pub fn new(features: usize, epsilon: f64, momentum: f64, device: &Device) -> Self {
        Self {
            gamma: Param::from_tensor(Tensor::ones([features], device)),
            beta: Param::from_tensor(Tensor::zeros([features], device)),
            running_mean: Statistic::new(Tensor::zeros([features], device)),
            running_var: Statistic::new(Tensor::ones([features], device)),
            epsilon,
            momentum,
        }
    }

    /// As [`new`](Self::new), with the constants of Keras: ε 1e-3, momentum 0.99 of the old
    /// statistics.
    #[must_use]
    pub fn keras(features: usize, device: &Device) -> Self {
        Self::new(features, 1e-3, 0.01, device)
    }

    /// Normalises `[N, C, H, W]`.
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.normalize(input, false)
    }

    /// ReLU of what [`forward`](Self::forward) answers.
    #[must_use]
    pub fn forward_relu(&self, input: Tensor<4>) -> Tensor<4> {
        self.normalize(input, true)
    }

    fn normalize(&self, input: Tensor<4>, relu: bool) -> Tensor<4> {
        if input.device().is_autodiff() && self.gamma.is_require_grad() {
            return self.normalize_by_batch(input, relu);
        }
        self.report(&input);
        let device = input.device();
        let output = batch_norm(
            input,
            self.gamma.val(),
            self.beta.val(),
            self.running_mean.value().to_device(&device),
            self.running_var.value().to_device(&device),
            self.epsilon,
        );
        if relu { fused::relu(output) } else { output }
    }

    fn normalize_by_batch(&self, input: Tensor<4>, relu: bool) -> Tensor<4> {
        let [batch, _, height, width] = input.dims();
        // One value has no unbiased variance; PyTorch refuses it, here it counts as itself.
        let count = (batch * height * width).max(2) as f64;
        let affine = (self.gamma.val(), self.beta.val());
        let result = fused::batch_norm(input, affine, self.epsilon, relu);
        let unbiased = result.variance.detach().mul_scalar(count / (count - 1.0));
        self.remember(&self.running_mean, result.mean.detach());
        self.remember(&self.running_var, unbiased);
        result.output
    }

    /// Tells whoever [`observe`]s what the input looks like.
    fn report(&self, input: &Tensor<4>) {
        OBSERVED.with_borrow_mut(|observed| {
            let Some(observed) = observed else { return };
            let [batch, _, height, width] = input.dims();
            let (gamma, beta) = (self.gamma.val(), self.beta.val());
            let result = batch_norm_train(input.clone(), gamma, beta, self.epsilon);
            observed.push(Observation {
                layer: self.gamma.id.val(),
                count: batch * height * width,
                mean: result.mean,
                variance: result.variance,
                epsilon: self.epsilon,
            });
        });
    }

    fn remember(&self, statistic: &Statistic, batch: Tensor<1>) {
        let kept = statistic.value().to_device(&batch.device());
        let kept = kept.mul_scalar(1.0 - self.momentum);
        statistic.set((kept + batch.mul_scalar(self.momentum)).detach());
    }
}

/// What one layer's input looked like.
pub(super) struct Observation {
    /// Identity of the layer's scale.
    pub layer: u64,
    /// Values in each channel.
    pub count: usize,
    /// Mean of each channel.
    pub mean: Tensor<1>,
    /// Biased variance of each channel.
    pub variance: Tensor<1>,
    /// What the layer adds to a variance.
    pub epsilon: f64,
}

thread_local! {
    // A network is generated code that hands nothing to its layers but images.
    static OBSERVED: RefCell<Option<Vec<Observation>>> = const { RefCell::new(None) };
}

/// What the inputs of all layers look like that run in inference mode, on this thread, in `run`.
pub(super) fn observe(run: impl FnOnce()) -> Vec<Observation> {
    OBSERVED.set(Some(Vec::new()));
    run();
    OBSERVED.take().unwrap_or_default()
}

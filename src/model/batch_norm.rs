//! Batch normalization with the running statistics of PyTorch and Keras.
//!
//! Burn's layer stores the biased batch variance. PyTorch and Keras normalize by the biased
//! variance but store the unbiased one, `n/(n−1)` times as large. A network pretrained there must
//! continue with the same rule.

use std::cell::RefCell;

use burn::module::{Module, Param};
use burn::tensor::module::{batch_norm, batch_norm_train};
use burn::tensor::{Device, Tensor};

use super::fused;
use super::running_statistic::RunningStatistic;

/// Batch normalization of `[N, C, H, W]` per channel (Ioffe and Szegedy 2015).
///
/// On an autodiff device, the layer normalizes by the batch's statistics and updates the running
/// ones: `running ← running·(1−momentum) + batch·momentum`. On any other device it normalizes by
/// the running statistics, like the eval mode of `torch.nn.BatchNorm2d`. A layer whose gamma
/// requires no gradient is frozen: it normalizes by the running statistics and does not update
/// them, on any device, as in the Keras of TensorFlow 2.
#[derive(Module, Debug)]
pub struct BatchNorm2d {
    gamma: Param<Tensor<1>>,
    beta: Param<Tensor<1>>,
    running_mean: RunningStatistic,
    running_var: RunningStatistic,
    epsilon: f64,
    momentum: f64,
}

impl BatchNorm2d {
    /// Creates a layer for `features` channels with gamma 1, beta 0, mean 0 and variance 1.
    ///
    /// `momentum` is the weight of the new batch in the running statistics, 0–1; PyTorch's default
    /// is 0.1.
    #[must_use]
    pub fn new(features: usize, epsilon: f64, momentum: f64, device: &Device) -> Self {
        Self {
            gamma: Param::from_tensor(Tensor::ones([features], device)),
            beta: Param::from_tensor(Tensor::zeros([features], device)),
            running_mean: RunningStatistic::new(Tensor::zeros([features], device)),
            running_var: RunningStatistic::new(Tensor::ones([features], device)),
            epsilon,
            momentum,
        }
    }

    /// Like [`new`](Self::new), with the constants of Keras: ε 1e-3, and momentum 0.99 for the old
    /// statistics.
    #[must_use]
    pub fn keras(features: usize, device: &Device) -> Self {
        Self::new(features, 1e-3, 0.01, device)
    }

    /// Normalizes `[N, C, H, W]`.
    #[must_use]
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.normalize(input, false)
    }

    /// Like [`forward`](Self::forward), followed by ReLU.
    #[must_use]
    pub fn forward_relu(&self, input: Tensor<4>) -> Tensor<4> {
        self.normalize(input, true)
    }

    fn normalize(&self, input: Tensor<4>, relu: bool) -> Tensor<4> {
        if input.device().is_autodiff() && self.gamma.is_require_grad() {
            return self.normalize_by_batch(input, relu);
        }
        self.record_input(&input);
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
        // A single value has no unbiased variance. PyTorch reports an error; here the biased one is
        // scaled as if there were two values.
        let count = (batch * height * width).max(2) as f64;
        let affine = (self.gamma.val(), self.beta.val());
        let result = fused::batch_norm(input, affine, self.epsilon, relu);
        let unbiased = result.variance.detach().mul_scalar(count / (count - 1.0));
        self.update_running(&self.running_mean, result.mean.detach());
        self.update_running(&self.running_var, unbiased);
        result.output
    }

    /// Records the statistics of the input, if [`record_input_statistics`] is active.
    fn record_input(&self, input: &Tensor<4>) {
        RECORDED.with_borrow_mut(|recorded| {
            let Some(recorded) = recorded else { return };
            let [batch, _, height, width] = input.dims();
            let (gamma, beta) = (self.gamma.val(), self.beta.val());
            let result = batch_norm_train(input.clone(), gamma, beta, self.epsilon);
            recorded.push(InputStatistics {
                layer: self.gamma.id.val(),
                count: batch * height * width,
                mean: result.mean,
                variance: result.variance,
                epsilon: self.epsilon,
            });
        });
    }

    fn update_running(&self, statistic: &RunningStatistic, batch: Tensor<1>) {
        let old = statistic.value().to_device(&batch.device());
        let old = old.mul_scalar(1.0 - self.momentum);
        statistic.set((old + batch.mul_scalar(self.momentum)).detach());
    }
}

/// Statistics of the input of one BatchNorm layer.
pub(super) struct InputStatistics {
    /// Parameter id of the layer's gamma.
    pub layer: u64,
    /// Number of values in each channel.
    pub count: usize,
    /// Mean of each channel.
    pub mean: Tensor<1>,
    /// Biased variance of each channel.
    pub variance: Tensor<1>,
    /// The layer's ε.
    pub epsilon: f64,
}

thread_local! {
    // Thread-local because the generated networks pass only tensors to their layers.
    static RECORDED: RefCell<Option<Vec<InputStatistics>>> = const { RefCell::new(None) };
}

/// Runs `run` and returns the input statistics of all BatchNorm layers that it executes in
/// inference mode on this thread.
pub(super) fn record_input_statistics(run: impl FnOnce()) -> Vec<InputStatistics> {
    RECORDED.set(Some(Vec::new()));
    run();
    RECORDED.take().unwrap_or_default()
}

//! Binary cross-entropy.

use burn::tensor::Tensor;

use super::{log_probabilities, weighted_mean};

/// Returns the mean binary cross-entropy of logits `[N, K]` against targets `[N, K]`, 0–1: a tensor
/// `[1]`.
///
/// `−mean(w·y·log p + (1−y)·log(1−p))`, PyTorch's `binary_cross_entropy_with_logits` with
/// `weights` `[1, K]` as its `pos_weight`.
#[must_use]
pub fn bce(logits: Tensor<2>, targets: Tensor<2>, weights: Option<&Tensor<2>>) -> Tensor<1> {
    weighted_mean(log_probabilities(logits), targets, weights)
}

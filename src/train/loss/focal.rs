//! Focal loss (Lin et al. 2017, <https://arxiv.org/abs/1708.02002>).

use burn::tensor::Tensor;

use super::{log_probabilities, weighted_mean};

/// Returns the mean focal loss of logits `[N, K]` against targets `[N, K]`, 0–1: a tensor `[1]`.
///
/// `−mean(w·y·(1−p)^γ·log p + (1−y)·p^γ·log(1−p))` with `gamma` at least 0 and `weights` `[1, K]`.
/// `weights` replaces the paper's α. Powers are computed as exponentials of γ times a logarithm, so
/// that their gradients stay finite where a probability rounds to 0 or 1.
#[must_use]
pub fn focal(
    logits: Tensor<2>,
    targets: Tensor<2>,
    gamma: f64,
    weights: Option<&Tensor<2>>,
) -> Tensor<1> {
    let (log_p, log_not_p) = log_probabilities(logits);
    let positive = log_not_p.clone().mul_scalar(gamma).exp() * log_p.clone();
    let negative = log_p.mul_scalar(gamma).exp() * log_not_p;
    weighted_mean((positive, negative), targets, weights)
}

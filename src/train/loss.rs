//! Losses on logits.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;

/// Mean binary cross-entropy of logits `[N, K]` against targets `[N, K]` of zeros and ones.
///
/// `max(x,0) − x·y + log(1+exp(−|x|))`, which cannot overflow; PyTorch's
/// `binary_cross_entropy_with_logits`. The result has shape `[1]`.
#[must_use]
pub fn bce_with_logits(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let softplus = logits.clone().abs().neg().exp().log1p();
    (relu(logits.clone()) - logits * targets + softplus).mean()
}

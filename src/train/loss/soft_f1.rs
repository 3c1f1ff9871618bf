//! Soft macro F1: F1 on probabilities instead of decisions.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

/// Avoids division by zero for a class that is neither present nor predicted.
const EPSILON: f64 = 1e-7;

/// Returns one minus the macro F1 of a batch, with probabilities as decisions: a tensor `[1]`, 0–1.
///
/// The result is `1 − mean over classes of 2Σp·y/(Σp + Σy + ε)` for logits `[N, K]` and targets
/// `[N, K]`; the sums run over the samples. A class without a positive sample in the batch has F1 0
/// and no gradient. Batches must therefore be large enough to contain the rarest class.
#[must_use]
pub fn soft_f1(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let probabilities = sigmoid(logits);
    let both = (probabilities.clone() * targets.clone()).sum_dim(0);
    let either = probabilities.sum_dim(0) + targets.sum_dim(0);
    let f1 = both.mul_scalar(2.0) / either.add_scalar(EPSILON);
    f1.mean().neg().add_scalar(1.0)
}

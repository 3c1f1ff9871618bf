//! Macro F1 on probabilities.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

/// Keeps a class that is neither there nor predicted from dividing by zero.
const EPSILON: f64 = 1e-7;

/// One minus the macro F1 of a batch, with probabilities for decisions: a tensor `[1]`, 0–1.
///
/// `1 − mean over classes of 2Σp·y/(Σp + Σy + ε)` of logits `[N, K]` and targets `[N, K]`, sums
/// over the samples. A class that no sample of the batch has counts as F1 0 whatever is predicted,
/// and has no gradient: batches have to be large against the rarest class.
#[must_use]
pub fn soft_f1(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let probabilities = sigmoid(logits);
    let both = (probabilities.clone() * targets.clone()).sum_dim(0);
    let either = probabilities.sum_dim(0) + targets.sum_dim(0);
    let f1 = both.mul_scalar(2.0) / either.add_scalar(EPSILON);
    f1.mean().neg().add_scalar(1.0)
}

//! Weight decay around any update rule.
//!
//! Tensors of rank 1 (biases, BatchNorm's scale and shift) do not decay, as in timm: a small bias
//! has no benefit, and BatchNorm's scale has a different role.

use burn::optim::{LearningRate, ModuleOptimizer, Optimizer};
use burn::tensor::{Device, Tensor};

/// How the decay enters the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecayKind {
    /// As the gradient of `rate/2·Σp²`, added before the rule: `g ← g + rate·p`.
    L2,
    /// Separately from the rule, as in AdamW (Loshchilov and Hutter 2017): `p ← p·(1 − lr·rate)`.
    Decoupled,
}

/// An update rule with weight decay.
#[derive(Debug, Clone)]
pub(super) struct WeightDecay<O> {
    /// Wrapped rule; its state is the whole state.
    pub rule: O,
    /// Decay rate, at least 0.
    pub rate: f64,
    pub kind: DecayKind,
}

impl<O: Optimizer> WeightDecay<O> {
    /// Creates the optimizer for a whole module.
    #[must_use]
    pub fn init(self) -> ModuleOptimizer {
        ModuleOptimizer::from(self)
    }
}

impl<O: Optimizer> Optimizer for WeightDecay<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        if self.rate == 0.0 || D <= 1 {
            return self.rule.step(lr, tensor, grad, state);
        }
        let (tensor, grad) = match self.kind {
            DecayKind::L2 => {
                let grad = grad + tensor.clone().mul_scalar(self.rate);
                (tensor, grad)
            }
            // Not p·(1 − lr·rate): the rounding error of this factor would accumulate over the
            // steps.
            DecayKind::Decoupled => (tensor.clone() - tensor.mul_scalar(lr * self.rate), grad),
        };
        self.rule.step(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        O::to_device(state, device)
    }
}

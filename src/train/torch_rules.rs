//! Update rules that run on libtorch in few launches, and elsewhere by Burn's implementation.

use burn::optim::{Adam, AdamState, AdaptiveMomentumState};
use burn::optim::{LearningRate, Optimizer, Sgd, SgdState};
use burn::tensor::{Device, Tensor};

use crate::model::fused::torch::{self, AdamConstants};

/// Adam with Burn's state.
#[derive(Clone)]
pub(super) struct TorchAdam {
    /// The rule on other devices.
    pub rule: Adam,
    pub constants: AdamConstants,
}

impl Optimizer for TorchAdam {
    type State<const D: usize> = AdamState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        if !torch::is_torch(&tensor.device()) {
            return self.rule.step(lr, tensor, grad, state);
        }
        let zeros = || AdaptiveMomentumState::new(0, grad.zeros_like(), grad.zeros_like());
        let mut moments = state.map_or_else(zeros, |state| state.momentum);
        moments.time += 1;
        let (tensor, [first, second]) = torch::adam(
            tensor,
            grad,
            [moments.moment_1, moments.moment_2],
            (lr, self.constants, moments.time),
        );
        let moments = AdaptiveMomentumState::new(moments.time, first, second);
        (tensor, Some(AdamState::new(moments)))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        Adam::to_device(state, device)
    }
}

/// SGD without momentum.
#[derive(Clone)]
pub(super) struct TorchSgd {
    /// The rule on other devices, without momentum.
    pub rule: Sgd,
}

impl Optimizer for TorchSgd {
    type State<const D: usize> = SgdState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        if !torch::is_torch(&tensor.device()) {
            return self.rule.step(lr, tensor, grad, state);
        }
        let state = state.unwrap_or_else(|| SgdState::new(None));
        (torch::sgd(tensor, grad, lr), Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        Sgd::to_device(state, device)
    }
}

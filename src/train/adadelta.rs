//! Adadelta (Zeiler 2012, <https://arxiv.org/abs/1212.5701>).

use burn::optim::{LearningRate, ModuleOptimizer, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor};

/// Settings of [`Adadelta`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdadeltaConfig {
    /// Decay of both running averages, 0–1.
    pub rho: f32,
    /// Added under both square roots.
    pub epsilon: f32,
}

/// The optimizer.
///
/// `E[g²] ← ρE[g²] + (1−ρ)g²`; `Δ = √(E[Δ²]+ε)/√(E[g²]+ε)·g`; `E[Δ²] ← ρE[Δ²] + (1−ρ)Δ²`;
/// `p ← p − lr·Δ`. PyTorch and Keras compute the same with other constants.
#[derive(Debug, Clone)]
pub struct Adadelta {
    config: AdadeltaConfig,
}

/// Running averages of one parameter, each of its shape.
#[derive(Clone)]
pub struct AdadeltaState<const D: usize> {
    square_average: Tensor<D>,
    delta_average: Tensor<D>,
}

impl AdadeltaConfig {
    /// An optimizer for a whole module.
    #[must_use]
    pub fn init(self) -> ModuleOptimizer {
        ModuleOptimizer::from(Adadelta { config: self })
    }
}

impl<const D: usize> RecordState for AdadeltaState<D> {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        out.push_tensor(prefix, "square_average", self.square_average.to_data());
        out.push_tensor(prefix, "delta_average", self.delta_average.to_data());
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, device: &Device) -> Option<Self> {
        Some(Self {
            square_average: Tensor::from_data(src.take_tensor(prefix, "square_average")?, device),
            delta_average: Tensor::from_data(src.take_tensor(prefix, "delta_average")?, device),
        })
    }
}

impl Optimizer for Adadelta {
    type State<const D: usize> = AdadeltaState<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<Self::State<D>>,
    ) -> (Tensor<D>, Option<Self::State<D>>) {
        let AdadeltaConfig { rho, epsilon } = self.config;
        let average = |old: Option<Tensor<D>>, value: Tensor<D>| {
            let new = value.square().mul_scalar(1.0 - rho);
            match old {
                Some(old) => old.mul_scalar(rho) + new,
                None => new,
            }
        };
        let (squares, deltas) = match state {
            Some(state) => (Some(state.square_average), Some(state.delta_average)),
            None => (None, None),
        };
        let square_average = average(squares, grad.clone());
        let root = |x: Tensor<D>| x.add_scalar(epsilon).sqrt();
        let earlier = deltas.clone().unwrap_or_else(|| grad.zeros_like());
        let delta = root(earlier) / root(square_average.clone()) * grad;
        let delta_average = average(deltas, delta.clone());
        let state = AdadeltaState { square_average, delta_average };
        (tensor - delta.mul_scalar(lr), Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        AdadeltaState {
            square_average: state.square_average.to_device(device),
            delta_average: state.delta_average.to_device(device),
        }
    }
}

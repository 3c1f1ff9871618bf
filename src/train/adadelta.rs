//! Adadelta (Zeiler 2012, <https://arxiv.org/abs/1212.5701>).

use burn::optim::{LearningRate, Optimizer, RecordState, StateSink, StateSource};
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use super::cpu_slices::{CHUNK, is_cpu, values, values_mut};
#[cfg(feature = "torch")]
use crate::model::fused::torch;

/// Settings of [`Adadelta`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdadeltaConfig {
    /// Decay of both running averages, 0–1.
    pub rho: f32,
    /// Added under both square roots.
    pub epsilon: f32,
}

/// The Adadelta optimizer.
///
/// `E[g²] ← ρE[g²] + (1−ρ)g²`; `Δ = √(E[Δ²]+ε)/√(E[g²]+ε)·g`; `E[Δ²] ← ρE[Δ²] + (1−ρ)Δ²`;
/// `p ← p − lr·Δ`. PyTorch and Keras use the same formula with different constants.
#[derive(Debug, Clone)]
pub struct Adadelta {
    config: AdadeltaConfig,
}

/// Running averages of one parameter, each of the same shape as the parameter.
#[derive(Clone)]
pub struct AdadeltaState<const D: usize> {
    square_average: Tensor<D>,
    delta_average: Tensor<D>,
}

impl AdadeltaConfig {
    /// Creates the update rule for one tensor.
    #[must_use]
    pub fn build(self) -> Adadelta {
        Adadelta { config: self }
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
        let state = state.unwrap_or_else(|| AdadeltaState {
            square_average: grad.zeros_like(),
            delta_average: grad.zeros_like(),
        });
        #[cfg(feature = "torch")]
        if torch::is_torch(&tensor.device()) {
            let averages = [state.square_average, state.delta_average];
            let AdadeltaConfig { rho, epsilon } = self.config;
            let constants = (lr, f64::from(rho), f64::from(epsilon));
            let (tensor, averages) = torch::adadelta(tensor, grad, averages, constants);
            let [square_average, delta_average] = averages;
            let state = AdadeltaState {
                square_average,
                delta_average,
            };
            return (tensor, Some(state));
        }
        let (tensor, state) = if is_cpu(&tensor.device()) {
            self.step_fused(lr as f32, tensor, grad, state)
        } else {
            self.step_by_tensors(lr, tensor, grad, state)
        };
        (tensor, Some(state))
    }

    fn to_device<const D: usize>(state: Self::State<D>, device: &Device) -> Self::State<D> {
        AdadeltaState {
            square_average: state.square_average.to_device(device),
            delta_average: state.delta_average.to_device(device),
        }
    }
}

impl Adadelta {
    /// Updates with tensor operations, on any device.
    fn step_by_tensors<const D: usize>(
        &self,
        lr: f64,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: AdadeltaState<D>,
    ) -> (Tensor<D>, AdadeltaState<D>) {
        let AdadeltaConfig { rho, epsilon } = self.config;
        let average = |old: Tensor<D>, value: Tensor<D>| {
            old.mul_scalar(rho) + value.square().mul_scalar(1.0 - rho)
        };
        let root = |x: Tensor<D>| x.add_scalar(epsilon).sqrt();
        let square_average = average(state.square_average, grad.clone());
        let delta = root(state.delta_average.clone()) / root(square_average.clone()) * grad;
        let delta_average = average(state.delta_average, delta.clone());
        (
            tensor - delta.mul_scalar(lr),
            AdadeltaState {
                square_average,
                delta_average,
            },
        )
    }

    /// Updates in one pass over memory. Tensor operations take sixteen passes, which on the CPU is
    /// a third of a small network's step.
    fn step_fused<const D: usize>(
        &self,
        lr: f32,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: AdadeltaState<D>,
    ) -> (Tensor<D>, AdadeltaState<D>) {
        let AdadeltaConfig { rho, epsilon } = self.config;
        let device = tensor.device();
        let mut tensor = tensor.into_data();
        let mut squares = state.square_average.into_data();
        let mut deltas = state.delta_average.into_data();
        let grad = grad.into_data();
        (
            values_mut(&mut tensor).par_chunks_mut(CHUNK),
            values_mut(&mut squares).par_chunks_mut(CHUNK),
            values_mut(&mut deltas).par_chunks_mut(CHUNK),
            values(&grad).par_chunks(CHUNK),
        )
            .into_par_iter()
            .for_each(|(values, squares, deltas, grads)| {
                for (((value, square), delta_average), &grad) in
                    values.iter_mut().zip(squares).zip(deltas).zip(grads)
                {
                    *square = rho * *square + (1.0 - rho) * (grad * grad);
                    let delta =
                        (*delta_average + epsilon).sqrt() / (*square + epsilon).sqrt() * grad;
                    *delta_average = rho * *delta_average + (1.0 - rho) * (delta * delta);
                    *value -= lr * delta;
                }
            });
        let state = AdadeltaState {
            square_average: Tensor::from_data(squares, &device),
            delta_average: Tensor::from_data(deltas, &device),
        };
        (Tensor::from_data(tensor, &device), state)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn fused_update_agrees_with_tensor_operations() {
        let device = Device::flex();
        let optimizer = Adadelta {
            config: AdadeltaConfig {
                rho: 0.9,
                epsilon: 1e-6,
            },
        };
        // More than one chunk, and not a whole number of them.
        let size = CHUNK + 37;
        let values = |step: usize| -> Vec<f32> {
            let value = |i: usize| ((i * 7919 + step * 104_729) % 2003) as f32 / 1001.0 - 1.0;
            (0..size).map(value).collect()
        };
        let tensor = |step| Tensor::<1>::from_data(TensorData::new(values(step), [size]), &device);
        let fresh = || AdadeltaState {
            square_average: Tensor::zeros([size], &device),
            delta_average: Tensor::zeros([size], &device),
        };
        let (mut fused, mut plain) = ((tensor(0), fresh()), (tensor(0), fresh()));
        for step in 1..=20 {
            fused = optimizer.step_fused(1.0, fused.0, tensor(step), fused.1);
            plain = optimizer.step_by_tensors(1.0, plain.0, tensor(step), plain.1);
        }
        let moved = (fused.0.clone() - tensor(0))
            .abs()
            .max()
            .into_scalar::<f32>();
        let apart = (fused.0 - plain.0).abs().max().into_scalar::<f32>();
        assert!(
            moved > 1e-3 && apart <= 1e-6,
            "moved {moved}, apart {apart}"
        );
    }
}

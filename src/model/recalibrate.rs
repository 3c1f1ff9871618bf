//! Recalibrates the statistics of every BatchNorm on given images, without changing inference.
//!
//! An export with folded BatchNorm has lost the statistics of its layers' inputs. Unfolded layers
//! have mean 0 and variance 1 − ε, so that they change nothing. In training, a layer normalizes by
//! the batch instead, and the network's outputs would differ strongly. Recalibration measures mean
//! `m` and variance `v` of each layer's input on a few hundred images, like the "precise"
//! statistics of Wu and Johnson (2021, <https://arxiv.org/abs/2105.07576>). They replace the old
//! `m₀` and `v₀`, and scale and shift compensate:
//! `γ ← γ·√(v+ε)/√(v₀+ε)`, `β ← β + γ·(m−m₀)/√(v₀+ε)` with the old γ. Inference stays the same, and
//! training batches are normalized at the matching scale.

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use burn_store::burn_pack::Tensor as PackTensor;
use burn_store::{ModuleSnapshot, bridge};

use super::batch_norm::{InputStatistics, record_input_statistics};
use super::weights::apply_some;
use super::{Classifier, WeightsError};

/// Accumulated input statistics of every BatchNorm layer.
#[derive(Debug, Default)]
pub struct Recalibration {
    /// Keyed by the parameter id of the layer's gamma.
    layers: HashMap<u64, InputMoments>,
}

/// Sums over all values of each channel.
#[derive(Debug, Default)]
struct InputMoments {
    count: f64,
    sum: Vec<f64>,
    squares: Vec<f64>,
    epsilon: f64,
}

impl Recalibration {
    /// Adds a batch of normalized images `[N, C, S, S]`.
    ///
    /// `classifier` must be in inference mode and the same in every call.
    pub fn add(&mut self, classifier: &Classifier, images: Tensor<4>) {
        for input in record_input_statistics(|| drop(classifier.features(images))) {
            self.layers.entry(input.layer).or_default().add(&input);
        }
    }

    /// Returns the number of measured BatchNorm layers.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Returns `classifier` with every measured layer recalibrated.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Fit`] if another network was measured.
    pub fn apply(&self, classifier: Classifier) -> Result<Classifier, WeightsError> {
        let tensors: HashMap<String, PackTensor> = classifier
            .collect(None, None, true)
            .into_iter()
            .map(|tensor| (tensor.name.clone(), tensor))
            .collect();
        let mut recalibrated = Vec::new();
        for (name, gamma) in &tensors {
            let layer = gamma.param_id.and_then(|id| self.layers.get(&id));
            if let (Some(layer), Some(path)) = (layer, name.strip_suffix(".gamma")) {
                recalibrated.extend(layer.recalibrated(path, &tensors)?);
            }
        }
        apply_some(classifier, recalibrated)
    }
}

impl InputMoments {
    fn add(&mut self, input: &InputStatistics) {
        let count = input.count as f64;
        let mean: Vec<f64> = values(&input.mean);
        self.epsilon = input.epsilon;
        self.count += count;
        self.sum.resize(mean.len(), 0.0);
        self.squares.resize(mean.len(), 0.0);
        for (channel, (mean, variance)) in mean.iter().zip(values(&input.variance)).enumerate() {
            self.sum[channel] += count * mean;
            self.squares[channel] += count * (variance + mean * mean);
        }
    }

    /// Returns mean and unbiased variance of a channel.
    fn statistics(&self, channel: usize) -> (f64, f64) {
        let mean = self.sum[channel] / self.count;
        let biased = (self.squares[channel] / self.count - mean * mean).max(0.0);
        (mean, biased * self.count / (self.count - 1.0).max(1.0))
    }

    /// Returns the new values of the layer's four tensors.
    fn recalibrated(
        &self,
        path: &str,
        tensors: &HashMap<String, PackTensor>,
    ) -> Result<[PackTensor; 4], WeightsError> {
        let read = |part: &str| {
            let name = format!("{path}.{part}");
            let missing = || WeightsError::Fit(format!("the network has no `{name}`"));
            let tensor = tensors.get(&name).ok_or_else(missing)?;
            let data = bridge::to_data(tensor).map_err(|e| WeightsError::Fit(e.to_string()))?;
            let values: Vec<f64> = data.iter::<f32>().map(f64::from).collect();
            Ok::<_, WeightsError>((values, tensor.param_id))
        };
        let (mut gamma, gamma_id) = read("gamma")?;
        let (mut beta, beta_id) = read("beta")?;
        let (mut mean, mean_id) = read("running_mean")?;
        let (mut variance, variance_id) = read("running_var")?;
        for channel in 0..gamma.len() {
            let (new_mean, new_variance) = self.statistics(channel);
            let old = (variance[channel] + self.epsilon).sqrt();
            beta[channel] += gamma[channel] * (new_mean - mean[channel]) / old;
            gamma[channel] *= (new_variance + self.epsilon).sqrt() / old;
            (mean[channel], variance[channel]) = (new_mean, new_variance);
        }
        let write = |part: &str, values: Vec<f64>, id: Option<u64>| {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            let shape = [values.len()];
            bridge::from_data(TensorData::new(values, shape), format!("{path}.{part}"), id)
        };
        Ok([
            write("gamma", gamma, gamma_id),
            write("beta", beta, beta_id),
            write("running_mean", mean, mean_id),
            write("running_var", variance, variance_id),
        ])
    }
}

fn values(tensor: &Tensor<1>) -> Vec<f64> {
    tensor.to_data().iter::<f32>().map(f64::from).collect()
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::tensor::Device;

    use super::*;
    use crate::graph::surgery::Filter;
    use crate::model::{Arch, ModelConfig, Pretrained, random_export};

    const SIDE: usize = 48;
    const BATCH: usize = 8;

    fn images(seed: usize, device: &Device) -> Tensor<4> {
        let shape = [BATCH, 4, SIDE, SIDE];
        let count: usize = shape.iter().product();
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 5003.0 - 1.0;
        let values: Vec<f32> = (0..count).map(value).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn difference(a: &Tensor<2>, b: &Tensor<2>) -> f32 {
        let largest = |x: Tensor<2>| x.abs().max().into_scalar::<f32>();
        largest(a.clone() - b.clone()) / largest(b.clone())
    }

    #[test]
    fn recalibration_keeps_inference_and_aligns_training() {
        let device = Device::flex();
        let filters = [Filter::Red, Filter::Green, Filter::Blue, Filter::Mean];
        let export = Pretrained::new(random_export(Arch::ResNet50, 5).unwrap()).unwrap();
        // Its statistics are unrelated to the images, like those of an unfolded file.
        let training = device.clone().autodiff();
        let load = || {
            let config = ModelConfig::new(Arch::ResNet50, SIDE as u32);
            let fresh = Classifier::new(&config, 0, &training);
            export.load(Arch::ResNet50, &filters, fresh).unwrap().0
        };
        let (measured, other) = (images(0, &device), images(1, &device));
        let before = load().valid();
        let mut recalibration = Recalibration::default();
        recalibration.add(&before, measured.clone());
        assert_eq!(recalibration.layers(), 53);
        let recalibrated = recalibration.apply(load()).unwrap();

        let after = recalibrated.valid().features(other.clone());
        let apart = difference(&after, &before.features(other));
        assert!(apart < 1e-3, "inference changed by {apart:e}");

        // In training mode, the measured batch has the stored statistics.
        let expected = before.features(measured.clone());
        let images = || Tensor::from_data(measured.to_data(), &training);
        let without = difference(&load().features(images()).inner(), &expected);
        let with = difference(&recalibrated.features(images()).inner(), &expected);
        assert!(with < 0.1 && without > 3.0 * with, "{without} → {with}");
    }
}

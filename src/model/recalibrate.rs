//! Restates every BatchNorm by the statistics of given images, without changing its answers.
//!
//! An export with folded BatchNorm no longer says what its layers' inputs look like: unfolded, they
//! have mean 0 and variance 1 − ε, which is no more than a way to do nothing. In training a layer
//! normalises by the batch instead, and the network would answer quite differently. Measured on a
//! few hundred images as the "precise" statistics of Wu and Johnson (2021,
//! <https://arxiv.org/abs/2105.07576>) are, mean `m` and variance `v` of each layer's input replace
//! the old `m₀` and `v₀`, and scale and shift make up for it:
//! `γ ← γ·√(v+ε)/√(v₀+ε)`, `β ← β + γ·(m−m₀)/√(v₀+ε)` with the old γ. Inference answers as before, and a
//! training batch now finds the scale that it expects.

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use burn_store::burn_pack::Tensor as PackTensor;
use burn_store::{ModuleSnapshot, bridge};

use super::batch_norm::{Observation, observe};
use super::weights::apply_some;
use super::{Classifier, WeightsError};

/// What was seen of each BatchNorm's input so far.
#[derive(Debug, Default)]
pub struct Recalibration {
    /// By the identity of the layer's scale.
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
    /// Takes in normalised images `[N, C, S, S]`, as many as fit in memory at a time.
    ///
    /// `classifier` must be in inference mode and the same in every call.
    pub fn add(&mut self, classifier: &Classifier, images: Tensor<4>) {
        for seen in observe(|| drop(classifier.features(images))) {
            self.layers.entry(seen.layer).or_default().add(&seen);
        }
    }

    /// Number of BatchNorm layers that were seen.
    #[must_use]
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// `classifier` with every layer restated.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Fit`]: the images were another network's.
    pub fn apply(&self, classifier: Classifier) -> Result<Classifier, WeightsError> {
        let tensors: HashMap<String, PackTensor> = classifier
            .collect(None, None, true)
            .into_iter()
            .map(|tensor| (tensor.name.clone(), tensor))
            .collect();
        let mut restated = Vec::new();
        for (name, gamma) in &tensors {
            let layer = gamma.param_id.and_then(|id| self.layers.get(&id));
            if let (Some(layer), Some(path)) = (layer, name.strip_suffix(".gamma")) {
                restated.extend(layer.restate(path, &tensors)?);
            }
        }
        apply_some(classifier, restated)
    }
}

impl InputMoments {
    fn add(&mut self, seen: &Observation) {
        let count = seen.count as f64;
        let mean: Vec<f64> = values(&seen.mean);
        self.epsilon = seen.epsilon;
        self.count += count;
        self.sum.resize(mean.len(), 0.0);
        self.squares.resize(mean.len(), 0.0);
        for (channel, (mean, variance)) in mean.iter().zip(values(&seen.variance)).enumerate() {
            self.sum[channel] += count * mean;
            self.squares[channel] += count * (variance + mean * mean);
        }
    }

    /// Mean and unbiased variance of a channel.
    fn statistics(&self, channel: usize) -> (f64, f64) {
        let mean = self.sum[channel] / self.count;
        let biased = (self.squares[channel] / self.count - mean * mean).max(0.0);
        (mean, biased * self.count / (self.count - 1.0).max(1.0))
    }

    /// New values of a layer's four tensors.
    fn restate(
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
    fn inference_stays_and_training_comes_to_agree_with_it() {
        let device = Device::flex();
        let filters = [Filter::Red, Filter::Green, Filter::Blue, Filter::Mean];
        let export = Pretrained::new(random_export(Arch::ResNet50, 5).unwrap()).unwrap();
        // Its statistics have nothing to do with the images, as those of an unfolded file.
        let training = device.clone().autodiff();
        let load = || {
            let config = ModelConfig::new(Arch::ResNet50, SIDE as u32);
            let fresh = Classifier::new(&config, 0, &training);
            export.load(Arch::ResNet50, &filters, fresh).unwrap().0
        };
        let (seen, other) = (images(0, &device), images(1, &device));
        let before = load().valid();
        let mut recalibration = Recalibration::default();
        recalibration.add(&before, seen.clone());
        assert_eq!(recalibration.layers(), 53);
        let restated = recalibration.apply(load()).unwrap();

        let after = restated.valid().features(other.clone());
        let apart = difference(&after, &before.features(other));
        assert!(apart < 1e-3, "inference moved by {apart:e}");

        // In training mode the batch that was measured has the statistics that were stored.
        let wanted = before.features(seen.clone());
        let images = || Tensor::from_data(seen.to_data(), &training);
        let without = difference(&load().features(images()).inner(), &wanted);
        let with = difference(&restated.features(images()).inner(), &wanted);
        assert!(with < 0.1 && without > 3.0 * with, "{without} → {with}");
    }
}

//! Helpers for the tests of networks.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use burn_store::{ModuleSnapshot, bridge};

use super::{Arch, Classifier, ModelConfig};

/// Returns the config of a small network: plain, 16×16, two classes, one hidden layer.
pub fn small() -> ModelConfig {
    let mut config = ModelConfig::new(Arch::Plain, 16);
    config.classes.truncate(2);
    config.hidden = vec![8];
    config
}

/// Returns `count` images for a network, with values from −1 to 1 that depend on `seed`.
pub fn images(config: &ModelConfig, count: usize, seed: usize, device: &Device) -> Tensor<4> {
    let side = config.input_size as usize;
    let shape = [count, config.channels.len(), side, side];
    let values: Vec<f32> = (0..shape.iter().product())
        .map(|i: usize| (((i + 31 * seed) * 7919 % 10_007) as f32 / 5003.0) - 1.0)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Takes one step towards large logits of the first class and small logits of the others.
pub fn step(
    classifier: Classifier,
    config: &ModelConfig,
    optimizer: &mut ModuleOptimizer,
    seed: usize,
) -> Classifier {
    let device = Device::flex().autodiff();
    let logits = classifier.logits(images(config, 4, seed, &device));
    let loss = logits.clone().powi_scalar(2).mean() - logits.narrow(1, 0, 1).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), &classifier);
    optimizer.step(0.01, classifier, gradients)
}

/// Returns the bits of every parameter and running statistic, by name.
pub fn bits(classifier: &Classifier) -> BTreeMap<String, Vec<u32>> {
    let tensors = classifier.valid().collect(None, None, true);
    tensors
        .iter()
        .map(|tensor| {
            let data = bridge::to_data(tensor).unwrap();
            (
                tensor.name.clone(),
                data.iter::<f32>().map(f32::to_bits).collect(),
            )
        })
        .collect()
}

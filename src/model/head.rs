//! From features to logits.

use burn::module::Module;
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};

use super::baseline::Baseline;
use super::{Arch, ModelConfig};

/// Pooling (average, or flattening for the baseline), dropout, dense ReLU layers with dropout
/// after each, one dense layer.
#[derive(Module, Debug)]
pub struct Head {
    flatten: bool,
    dropout: Dropout,
    hidden: Vec<Linear>,
    hidden_dropout: Dropout,
    output: Linear,
}

impl Head {
    /// Builds a head with random weights.
    #[must_use]
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let flattened = Baseline::FEATURES * Baseline::feature_side(config.input_size).pow(2);
        let pooled = config.arch.imported().map(|network| network.features);
        let mut width = pooled.unwrap_or(flattened);
        let mut hidden = Vec::new();
        for &units in &config.hidden {
            hidden.push(LinearConfig::new(width, units).init(device));
            width = units;
        }
        Self {
            flatten: config.arch == Arch::Baseline,
            dropout: DropoutConfig::new(config.dropout).init(),
            hidden,
            hidden_dropout: DropoutConfig::new(config.hidden_dropout).init(),
            output: LinearConfig::new(width, config.classes.len()).init(device),
        }
    }

    /// Features `[N, F, h, w]` to one vector a sample.
    #[must_use]
    pub fn pool(&self, features: Tensor<4>) -> Tensor<2> {
        if self.flatten {
            features.flatten(1, 3)
        } else {
            adaptive_avg_pool2d(features, [1, 1]).flatten(1, 3)
        }
    }

    /// Pooled features to logits `[N, K]`.
    #[must_use]
    pub fn forward(&self, pooled: Tensor<2>) -> Tensor<2> {
        let mut x = self.dropout.forward(pooled);
        for layer in &self.hidden {
            x = self.hidden_dropout.forward(relu(layer.forward(x)));
        }
        self.output.forward(x)
    }
}

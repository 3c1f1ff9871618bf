//! A whole network: backbone and head.

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

use super::{Backbone, Head, ModelConfig};

/// A multi-label classifier of four-channel images.
#[derive(Module, Debug)]
pub struct Classifier {
    backbone: Backbone,
    head: Head,
}

impl Classifier {
    /// Builds a network with random weights that depend on `seed` alone.
    #[must_use]
    pub fn new(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        device.seed(seed);
        Self {
            backbone: Backbone::new(config, device),
            head: Head::new(config, device),
        }
        .materialize()
    }

    /// Pooled features `[N, F]` of normalised images `[N, C, S, S]`.
    #[must_use]
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.pool(self.backbone.forward(images))
    }

    /// Logits `[N, K]` of normalised images `[N, C, S, S]`.
    #[must_use]
    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.features(images))
    }

    /// Probabilities `[N, K]`, 0–1.
    #[must_use]
    pub fn probabilities(&self, images: Tensor<4>) -> Tensor<2> {
        sigmoid(self.logits(images))
    }
}

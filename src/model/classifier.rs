//! A whole network: backbone and head.

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};

use super::identity::identify;
use super::{Arch, Backbone, BatchNorm2d, Head, ModelConfig};

/// A multi-label classifier of images of several channels.
#[derive(Module, Debug)]
pub struct Classifier {
    input_norm: Option<BatchNorm2d>,
    backbone: Backbone,
    head: Head,
}

impl Classifier {
    /// Builds a network with random weights that depend on `seed` and their names alone.
    #[must_use]
    pub fn new(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        let channels = config.channels.len();
        let network = Self {
            input_norm: config
                .input_norm
                .then(|| BatchNorm2d::keras(channels, device)),
            backbone: Backbone::new(config, device),
            head: Head::new(config, device),
        };
        identify(network, seed)
    }

    /// The network of its backbone.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.backbone.arch()
    }

    /// Pooled features `[N, F]` of normalised images `[N, C, S, S]`.
    #[must_use]
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        let images = match &self.input_norm {
            Some(norm) => norm.forward(images),
            None => images,
        };
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

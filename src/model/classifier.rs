//! A complete network: input normalization, backbone and head.

use burn::module::Module;
use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor};
use burn_store::{ModuleSnapshot, bridge};
use sha2::{Digest, Sha256};

use super::head::HEAD;
use super::parameters::{init_parameters, list_parameters};
use super::{Arch, Backbone, BatchNorm2d, Head, ModelConfig, fused};

/// A multi-label classifier of multi-channel images.
#[derive(Module, Debug)]
pub struct Classifier {
    input_norm: Option<BatchNorm2d>,
    backbone: Backbone,
    head: Head,
}

impl Classifier {
    /// Builds a network with random weights that depend only on `seed` and their names.
    #[must_use]
    pub fn new(config: &ModelConfig, seed: u64, device: &Device) -> Self {
        let channels = config.channels.len();
        let network = Self {
            input_norm: config
                .input_norm
                .then(|| BatchNorm2d::keras(channels, device)),
            backbone: Backbone::new(config.arch, config.channels.len(), device),
            head: Head::new(config, device),
        };
        init_parameters(network, seed)
    }

    /// Returns the architecture of the backbone.
    #[must_use]
    pub fn arch(&self) -> Arch {
        self.backbone.arch()
    }

    /// Returns the feature map `[N, F, h, w]` of the backbone for normalised images `[N, C, S, S]`.
    fn feature_map(&self, images: Tensor<4>) -> Tensor<4> {
        let images = match &self.input_norm {
            Some(norm) => norm.forward(images),
            None => images,
        };
        // The head computes in float32, whatever the precision of the backbone.
        fused::to_float32(self.backbone.forward(images))
    }

    /// Returns the pooled features `[N, F]` of normalised images `[N, C, S, S]`.
    #[must_use]
    pub fn features(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.pool(self.feature_map(images))
    }

    /// Returns the logits `[N, K]` of normalised images `[N, C, S, S]`.
    #[must_use]
    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.features(images))
    }

    /// Returns the input of the head's first layer with weights, `[N, L]`: the pooled features, or the
    /// whole feature map if a projection precedes the pooling. It does not depend on the head's weights.
    #[must_use]
    pub fn head_input(&self, images: Tensor<4>) -> Tensor<2> {
        self.head.input(self.feature_map(images))
    }

    /// Returns the logits `[N, K]` for a [`head_input`](Self::head_input).
    #[must_use]
    pub fn head_logits(&self, input: Tensor<2>) -> Tensor<2> {
        self.head.forward(self.head.resume(input))
    }

    /// Returns whether all parameters before the head are frozen.
    #[must_use]
    pub fn only_head_trains(&self) -> bool {
        let mut parameters = list_parameters(self).into_iter();
        parameters.all(|parameter| !parameter.trains || parameter.path.starts_with(HEAD))
    }

    /// Returns the SHA-256 of all weights and statistics before the head, in hexadecimal digits.
    #[must_use]
    pub fn hash_before_head(&self) -> String {
        let mut hasher = Sha256::new();
        let mut tensors = self.valid().collect(None, None, true);
        tensors.retain(|tensor| !tensor.name.starts_with(HEAD));
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        for tensor in &tensors {
            hasher.update(tensor.name.as_bytes());
            if let Ok(data) = bridge::to_data(tensor) {
                hasher.update(data.as_bytes());
            }
        }
        hex::encode(hasher.finalize())
    }

    /// Returns the probabilities `[N, K]`, 0–1, of normalised images `[N, C, S, S]`.
    #[must_use]
    pub fn probabilities(&self, images: Tensor<4>) -> Tensor<2> {
        sigmoid(self.logits(images))
    }

    /// Returns the [`probabilities`](Self::probabilities) and the [`features`](Self::features) that they
    /// are computed from.
    #[must_use]
    pub fn probabilities_and_features(&self, images: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let features = self.features(images);
        let logits = self.head.forward(features.clone());
        (sigmoid(logits), features)
    }
}

//! Classifier heads: from a feature map to logits.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::module::{adaptive_avg_pool2d, max_pool2d};
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};

use super::{ModelConfig, Pooling};

/// Prefix of the names of the head's parameters.
pub(super) const HEAD: &str = "head.";

/// Projection (1×1 convolution, ReLU), pooling, dropout, dense ReLU layers with dropout after each,
/// and one dense output layer. All except pooling and the output layer are optional.
#[derive(Module, Debug)]
pub struct Head {
    projection: Option<Conv2d>,
    #[module(skip)]
    pooling: Pooling,
    /// Channels and side of the feature map.
    #[module(skip)]
    features: (usize, usize),
    dropout: Dropout,
    hidden: Vec<Linear>,
    hidden_dropout: Vec<Dropout>,
    output: Linear,
}

impl Head {
    /// Builds a head with random weights.
    #[must_use]
    pub fn new(config: &ModelConfig, device: &Device) -> Self {
        let (features, side) = config.arch.feature_map(config.input_size);
        let projection = config.projection.map(|width| {
            let config = Conv2dConfig::new([features, width], [1, 1]);
            config.init(device)
        });
        let mut width = config.pooled_width();
        let mut hidden = Vec::new();
        for &units in &config.hidden {
            hidden.push(LinearConfig::new(width, units).init(device));
            width = units;
        }
        let dropout = |probability| DropoutConfig::new(probability).init();
        Self {
            projection,
            pooling: config.pooling(),
            features: (features, side),
            dropout: dropout(config.dropout),
            hidden,
            hidden_dropout: config.hidden_dropout().into_iter().map(dropout).collect(),
            output: LinearConfig::new(width, config.classes.len()).init(device),
        }
    }

    /// Converts a feature map `[N, F, h, w]` to the input of the first layer with weights, `[N,
    /// L]`.
    #[must_use]
    pub fn input(&self, features: Tensor<4>) -> Tensor<2> {
        match self.projection {
            Some(_) => features.flatten(1, 3),
            None => self.pool(features),
        }
    }

    /// Converts the result of [`input`](Self::input) to the pooled features.
    #[must_use]
    pub fn resume(&self, input: Tensor<2>) -> Tensor<2> {
        if self.projection.is_none() {
            return input;
        }
        let [batch, _] = input.dims();
        let (channels, side) = self.features;
        self.pool(input.reshape([batch, channels, side, side]))
    }

    /// Pools a feature map `[N, F, h, w]` to one vector per sample.
    #[must_use]
    pub fn pool(&self, features: Tensor<4>) -> Tensor<2> {
        let features = match &self.projection {
            Some(projection) => relu(projection.forward(features)),
            None => features,
        };
        match self.pooling {
            Pooling::Average => average(features),
            Pooling::AverageMax => {
                let [_, _, height, width] = features.dims();
                let largest = max_pool2d(features.clone(), MaxPoolOptions::new([height, width]));
                Tensor::cat(vec![average(features), largest.flatten(1, 3)], 1)
            }
            Pooling::Flatten => features.flatten(1, 3),
        }
    }

    /// Computes the logits `[N, K]` from pooled features.
    #[must_use]
    pub fn forward(&self, pooled: Tensor<2>) -> Tensor<2> {
        let mut x = self.dropout.forward(pooled);
        for (layer, dropout) in self.hidden.iter().zip(&self.hidden_dropout) {
            x = dropout.forward(relu(layer.forward(x)));
        }
        self.output.forward(x)
    }
}

fn average(features: Tensor<4>) -> Tensor<2> {
    adaptive_avg_pool2d(features, [1, 1]).flatten(1, 3)
}

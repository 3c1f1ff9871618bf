//! The backbone of the 8-layer baseline of the reference experiments.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::tensor::{Device, Tensor};

use super::fused;

const FEATURES: usize = 32;

/// conv 3×3 16, ReLU, conv 3×3 32, ReLU, max pooling 2×2; no padding, like Keras's default.
#[derive(Module, Debug)]
pub struct Baseline {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
}

impl Baseline {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        Self {
            conv1: Conv2dConfig::new([channels, 16], [3, 3]).init(device),
            conv2: Conv2dConfig::new([16, FEATURES], [3, 3]).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
        }
    }

    /// Returns channels and side of the feature map for a square input of side `size`.
    pub(super) fn feature_map(size: usize) -> (usize, usize) {
        (FEATURES, size.saturating_sub(4) / 2)
    }

    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        let x = fused::relu(fused::conv2d(&self.conv1, images));
        let x = fused::relu(fused::conv2d(&self.conv2, x));
        self.pool.forward(x)
    }
}

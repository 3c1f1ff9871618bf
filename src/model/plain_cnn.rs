//! The backbone of the reference experiments' first notebook: a plain VGG-style stack.

use burn::module::Module;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};

use super::{BatchNorm2d, fused};

/// Width and number of convolutions before each pooling.
const STAGES: [(usize, usize); 3] = [(64, 2), (128, 2), (256, 4)];

/// conv64 ×2, pool, conv128 ×2, pool, conv256 ×4, pool.
///
/// Convolutions are 3×3 and preserve the size; `BatchNorm` and ReLU follow each. Pooling is 2×2 max
/// pooling.
#[derive(Module, Debug)]
pub struct PlainCnn {
    stages: Vec<Vec<ConvBlock>>,
}

#[derive(Module, Debug)]
struct ConvBlock {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl PlainCnn {
    pub(super) fn new(channels: usize, device: &Device) -> Self {
        let mut inputs = channels;
        let mut block = |width| {
            let conv = Conv2dConfig::new([inputs, width], [3, 3])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
            inputs = width;
            ConvBlock {
                conv: conv.init(device),
                norm: BatchNorm2d::keras(width, device),
            }
        };
        let stages = STAGES.map(|(width, depth)| (0..depth).map(|_| block(width)).collect());
        Self {
            stages: stages.into(),
        }
    }

    /// Returns channels and side of the feature map for a square input of side `size`.
    pub(super) fn feature_map(size: usize) -> (usize, usize) {
        let (width, _) = STAGES[STAGES.len() - 1];
        (width, size >> STAGES.len())
    }

    pub(super) fn forward(&self, images: Tensor<4>) -> Tensor<4> {
        self.stages.iter().fold(images, |images, stage| {
            let features = stage.iter().fold(images, |x, block| {
                block.norm.forward_relu(fused::conv2d(&block.conv, x))
            });
            max_pool2d(features, MaxPoolOptions::new([2, 2]))
        })
    }
}

//! A small network with every kind of layer of the imported networks.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, Tensor};
use rgby::model::BatchNorm2d;
use rgby::model::fused::conv2d;

/// Number of classes of [`Kinds`].
pub const CLASSES: usize = 5;

/// Convolution without bias, then BatchNorm and ReLU.
#[derive(Module, Debug)]
struct Unit {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl Unit {
    /// `pads` is the padding of height and width.
    fn new(
        widths: [usize; 2],
        kernel: [usize; 2],
        stride: usize,
        pads: [usize; 2],
        device: &Device,
    ) -> Self {
        let [height, width] = pads;
        let conv = Conv2dConfig::new(widths, kernel)
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(height, width, height, width))
            .with_bias(false);
        Self {
            conv: conv.init(device),
            norm: BatchNorm2d::new(widths[1], 1e-5, 0.1, device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        relu(self.norm.forward(conv2d(&self.conv, x)))
    }
}

/// `BatchNorm` and ReLU before the convolution, as in `DenseNet`.
#[derive(Module, Debug)]
struct Growth {
    norm: BatchNorm2d,
    conv: Conv2d,
}

impl Growth {
    fn new(inputs: usize, outputs: usize, kernel: usize, device: &Device) -> Self {
        let pad = kernel / 2;
        let conv = Conv2dConfig::new([inputs, outputs], [kernel, kernel])
            .with_padding(PaddingConfig2d::Explicit(pad, pad, pad, pad))
            .with_bias(false);
        Self {
            norm: BatchNorm2d::new(inputs, 1e-5, 0.1, device),
            conv: conv.init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        conv2d(&self.conv, relu(self.norm.forward(x)))
    }
}

/// One layer of each kind in the imported networks, for images of side [`SIDE`].
#[derive(Module, Debug)]
pub struct Kinds {
    input_norm: BatchNorm2d,
    stem: Unit,
    stem_pool: MaxPool2d,
    branches: Vec<Vec<Unit>>,
    average: AvgPool2d,
    up: Conv2d,
    down: Unit,
    shortcut: Conv2d,
    shortcut_norm: BatchNorm2d,
    reduce: Unit,
    reduce_pool: MaxPool2d,
    growths: Vec<Growth>,
    transition: Growth,
    transition_pool: AvgPool2d,
    /// Public, so that a test can remove its gradient.
    pub hidden: Linear,
    dropout: Dropout,
    output: Linear,
}

/// Input side of [`Kinds`] in pixels. The reductions give 36, 18, 9, 4 and 2.
pub const SIDE: usize = 72;

impl Kinds {
    pub fn new(device: &Device) -> Self {
        let unit = |widths, kernel, pads| Unit::new(widths, kernel, 1, pads, device);
        Self {
            input_norm: BatchNorm2d::keras(4, device),
            stem: Unit::new([4, 8], [7, 7], 2, [3, 3], device),
            stem_pool: MaxPool2dConfig::new([3, 3])
                .with_strides([2, 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(),
            branches: vec![
                vec![unit([8, 4], [1, 1], [0, 0]), unit([4, 4], [3, 3], [1, 1])],
                vec![unit([8, 4], [5, 5], [2, 2])],
                vec![unit([8, 4], [1, 7], [0, 3]), unit([4, 4], [7, 1], [3, 0])],
                vec![unit([8, 4], [1, 3], [0, 1]), unit([4, 4], [3, 1], [1, 0])],
            ],
            average: AvgPool2dConfig::new([3, 3])
                .with_strides([1, 1])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .with_count_include_pad(false)
                .init(),
            up: Conv2dConfig::new([24, 8], [1, 1]).init(device),
            down: Unit::new([8, 12], [3, 3], 2, [1, 1], device),
            shortcut: Conv2dConfig::new([8, 12], [1, 1])
                .with_stride([2, 2])
                .with_bias(false)
                .init(device),
            shortcut_norm: BatchNorm2d::new(12, 1e-5, 0.1, device),
            reduce: Unit::new([12, 8], [3, 3], 2, [0, 0], device),
            reduce_pool: MaxPool2dConfig::new([3, 3]).with_strides([2, 2]).init(),
            growths: (0..3)
                .map(|n| Growth::new(20 + 6 * n, 6, 3, device))
                .collect(),
            transition: Growth::new(38, 16, 1, device),
            transition_pool: AvgPool2dConfig::new([2, 2])
                .with_strides([2, 2])
                .with_count_include_pad(true)
                .init(),
            hidden: LinearConfig::new(16, 16).init(device),
            dropout: DropoutConfig::new(0.0).init(),
            output: LinearConfig::new(16, CLASSES).init(device),
        }
    }

    pub fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward(self.input_norm.forward(images));
        let x = self.stem_pool.forward(x);
        // Inception's branches: concatenated, scaled and added.
        let run = |units: &Vec<Unit>| units.iter().fold(x.clone(), |x, unit| unit.forward(x));
        let mut branches: Vec<_> = self.branches.iter().map(run).collect();
        branches.push(self.average.forward(x.clone()));
        let change = conv2d(&self.up, Tensor::cat(branches, 1)).mul_scalar(0.17);
        let x = relu(change.add(x));
        // ResNet's reduction with a projected shortcut.
        let shortcut = self
            .shortcut_norm
            .forward(conv2d(&self.shortcut, x.clone()));
        let x = relu(self.down.forward(x).add(shortcut));
        // Inception's reduction: a convolution and a pooling without padding.
        let pooled = self.reduce_pool.forward(x.clone());
        let mut chain = vec![self.reduce.forward(x), pooled];
        // DenseNet's chain: each layer reads the outputs of all layers before it.
        for growth in &self.growths {
            chain.push(growth.forward(Tensor::cat(chain.clone(), 1)));
        }
        let x = self.transition.forward(Tensor::cat(chain, 1));
        let x = adaptive_avg_pool2d(self.transition_pool.forward(x), [1, 1]).flatten(1, 3);
        let x = self.dropout.forward(relu(self.hidden.forward(x)));
        self.output.forward(x)
    }
}

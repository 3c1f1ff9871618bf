//! A GPU computes what the CPU computes: 20 steps from the same weights on the same batches.
//!
//! `VK_DRIVER_FILES` chooses the driver; two that need no GPU are Mesa's lavapipe and `SwiftShader`.

use std::collections::BTreeMap;
use std::fmt;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::pool::{AvgPool2d, AvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn::nn::{Dropout, DropoutConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::optim::GradientsParams;
use burn::tensor::activation::relu;
use burn::tensor::module::adaptive_avg_pool2d;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_store::{ModuleSnapshot, bridge};
use rgby::data::Batch;
use rgby::model::{Arch, BatchNorm2d, Classifier, ModelConfig, Pooling};
use rgby::train::{
    Constants, Ema, Loss, LossConfig, OptimizerConfig, OptimizerName, StepRule, TrainDevice,
    Trainer,
};

use crate::pytorch::noise;
use crate::support::skipped;

const STEPS: usize = 20;
const SAMPLES: usize = 6;
const BATCHES: usize = 4;
const CLASSES: usize = 5;
/// Largest difference, relative to the largest value of a tensor.
const TOLERANCE: f64 = 1e-4;

/// A GPU, if there is one.
pub fn gpu() -> Option<Device> {
    match TrainDevice::Wgpu(None).open() {
        Ok(device) => Some(device),
        Err(reason) => {
            skipped(reason);
            None
        }
    }
}

/// What training came to.
struct Trained {
    losses: Vec<f64>,
    tensors: BTreeMap<String, Vec<f32>>,
}

/// Largest relative differences between two trainings.
#[derive(Debug, Default)]
struct Difference {
    loss: f64,
    weights: f64,
    statistics: f64,
}

impl Trained {
    fn new<M: Module>(losses: Vec<f64>, network: &M) -> Self {
        let tensors = network.valid().collect(None, None, true);
        let values =
            |tensor: &_| -> Vec<f32> { bridge::to_data(tensor).unwrap().iter::<f32>().collect() };
        let named = tensors.iter().map(|t| (t.name.clone(), values(t)));
        Self {
            losses,
            tensors: named.collect(),
        }
    }

    fn difference(&self, other: &Self) -> Difference {
        let mut most = Difference::default();
        assert_eq!(self.losses.len(), other.losses.len());
        for (ours, theirs) in self.losses.iter().zip(&other.losses) {
            most.loss = larger(most.loss, (ours - theirs).abs() / theirs);
        }
        assert!(self.tensors.keys().eq(other.tensors.keys()));
        for (name, expected) in &other.tensors {
            let found = &self.tensors[name];
            assert_eq!(found.len(), expected.len(), "{name}");
            let scale = expected.iter().fold(0.0_f32, |scale, v| scale.max(v.abs()));
            let pairs = found.iter().zip(expected);
            let apart = pairs.fold(0.0, |most, (a, b)| larger(most, f64::from((a - b).abs())));
            let place = if name.contains("running") {
                &mut most.statistics
            } else {
                &mut most.weights
            };
            *place = larger(*place, apart / f64::from(scale));
        }
        most
    }
}

/// The larger one, where no number is larger than NaN.
fn larger(a: f64, b: f64) -> f64 {
    if b.is_nan() { b } else { a.max(b) }
}

impl Difference {
    fn is_small(&self) -> bool {
        [self.loss, self.weights, self.statistics]
            .iter()
            .all(|difference| *difference <= TOLERANCE)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self {
            loss,
            weights,
            statistics,
        } = self;
        write!(f, "loss {loss:.1e}, weights {weights:.1e}, ")?;
        write!(f, "BatchNorm statistics {statistics:.1e}")
    }
}

/// Gives every parameter and statistic values that depend on its name alone.
fn fill<M: Module>(network: &mut M) {
    let tensors = network.valid().collect(None, None, true);
    let filled = tensors.iter().map(|tensor| {
        let shape = bridge::to_data(tensor).unwrap().shape().clone();
        let count = shape.num_elements();
        let fan_in = count / shape[0];
        let values = if shape.num_dims() == 1 {
            noise(&tensor.name, count, 0.5, 1.5)
        } else {
            let bound = (3.0_f32 / fan_in as f32).sqrt();
            noise(&tensor.name, count, -bound, bound)
        };
        bridge::from_data(TensorData::new(values, shape), tensor.name.clone(), None)
    });
    let filled: Vec<_> = filled.collect();
    let count = filled.len();
    let applied = network.apply(filled, None, None, true);
    assert_eq!(applied.applied.len(), count);
}

/// The batch of a step; they come again, so that there is something to learn.
fn batch(step: usize, channels: usize, side: usize) -> Batch {
    let number = step % BATCHES;
    // In patches, so that pooled samples differ: where they hardly do, BatchNorm makes much of their
    // rounding, and two devices part after a few steps.
    let (patch, patches) = (side / 4, 4);
    let gray = noise(
        &format!("images {number}"),
        SAMPLES * channels * 16,
        -1.0,
        1.0,
    );
    let pixel = |at: usize| {
        let (plane, y, x) = (at / (side * side), at / side % side, at % side);
        gray[(plane * patches + y / patch) * patches + x / patch]
    };
    let present = noise(&format!("targets {number}"), SAMPLES * CLASSES, 0.0, 1.0);
    Batch {
        images: (0..SAMPLES * channels * side * side).map(pixel).collect(),
        targets: present
            .iter()
            .map(|value| f32::from(u8::from(*value < 0.4)))
            .collect(),
        indices: (0..SAMPLES).collect(),
    }
}

fn adadelta() -> OptimizerConfig {
    let optimizer = OptimizerConfig {
        constants: Constants::PyTorch,
        ..OptimizerConfig::new(OptimizerName::Adadelta)
    };
    optimizer.resolved().unwrap()
}

fn bce(device: &Device) -> Loss {
    Loss::new(&LossConfig::default(), &[0; CLASSES], 1, device)
}

/// The plain network with everything that a head can have, through everything that a step can do.
fn train_plain(device: &Device) -> Trained {
    const SIDE: usize = 16;
    let mut config = ModelConfig::new(Arch::Plain, SIDE as u32);
    config.classes.truncate(CLASSES);
    config.input_norm = true;
    config.projection = Some(12);
    config.pooling = Some(Pooling::AverageMax);
    config.hidden = vec![16];
    let autodiff = device.clone().autodiff();
    let mut classifier = Classifier::new(&config.resolved().unwrap(), 0, &autodiff);
    fill(&mut classifier);
    let rule = StepRule {
        loss: bce(&autodiff),
        clip_norm: Some(0.5),
        batch_size: SAMPLES / 2,
    };
    let average = Ema::new(&classifier, 0.9);
    let optimizer = adadelta().init();
    let mut trainer =
        Trainer::new(classifier, optimizer, rule, device, (4, SIDE as u32)).with_ema(Some(average));
    let losses = (0..STEPS).map(|step| trainer.submit(batch(step, 4, SIDE), 0.01, step as u64, 0));
    let losses: Vec<_> = losses.collect();
    let losses = losses.into_iter().map(rgby::train::StepLoss::read);
    let mut result = Trained::new(losses.collect(), trainer.classifier());
    let average = Trained::new(Vec::new(), trainer.ema().unwrap());
    let average = average.tensors.into_iter();
    result
        .tensors
        .extend(average.map(|(name, values)| (format!("average of {name}"), values)));
    result
}

/// A convolution without bias, BatchNorm, ReLU.
#[derive(Module, Debug)]
struct Unit {
    conv: Conv2d,
    norm: BatchNorm2d,
}

impl Unit {
    /// `pads` are those of height and width.
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
        relu(self.norm.forward(self.conv.forward(x)))
    }
}

/// `BatchNorm` and ReLU before the convolution, as `DenseNet` has it.
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
        self.conv.forward(relu(self.norm.forward(x)))
    }
}

/// One layer of each kind that the imported networks are made of, on images of side 72.
#[derive(Module, Debug)]
struct Kinds {
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
    hidden: Linear,
    dropout: Dropout,
    output: Linear,
}

/// Input side of [`Kinds`], and the side after each reduction: 36, 18, 9, 4, 2.
const SIDE: usize = 72;

impl Kinds {
    fn new(device: &Device) -> Self {
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

    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.stem.forward(self.input_norm.forward(images));
        let x = self.stem_pool.forward(x);
        // Inception's branches, concatenated, scaled and added.
        let run = |units: &Vec<Unit>| units.iter().fold(x.clone(), |x, unit| unit.forward(x));
        let mut branches: Vec<_> = self.branches.iter().map(run).collect();
        branches.push(self.average.forward(x.clone()));
        let change = self.up.forward(Tensor::cat(branches, 1)).mul_scalar(0.17);
        let x = relu(change.add(x));
        // ResNet's reduction with a projected shortcut.
        let shortcut = self.shortcut_norm.forward(self.shortcut.forward(x.clone()));
        let x = relu(self.down.forward(x).add(shortcut));
        // Inception's, of a convolution and a pooling without padding.
        let pooled = self.reduce_pool.forward(x.clone());
        let mut chain = vec![self.reduce.forward(x), pooled];
        // DenseNet's chain: each layer sees all before it.
        for growth in &self.growths {
            chain.push(growth.forward(Tensor::cat(chain.clone(), 1)));
        }
        let x = self.transition.forward(Tensor::cat(chain, 1));
        let x = adaptive_avg_pool2d(self.transition_pool.forward(x), [1, 1]).flatten(1, 3);
        let x = self.dropout.forward(relu(self.hidden.forward(x)));
        self.output.forward(x)
    }
}

/// Trains [`Kinds`]; with `fault`, one dense layer gets no gradient, as one driver had it.
fn train_kinds(device: &Device, steps: usize, fault: bool) -> Trained {
    let autodiff = device.clone().autodiff();
    let mut network = Kinds::new(&autodiff);
    fill(&mut network);
    let (loss, mut optimizer) = (bce(&autodiff), adadelta().init());
    let mut losses = Vec::new();
    for step in 0..steps {
        let batch = batch(step, 4, SIDE);
        let images = TensorData::new(batch.images, [SAMPLES, 4, SIDE, SIDE]);
        let targets = TensorData::new(batch.targets, [SAMPLES, CLASSES]);
        let logits = network.logits(Tensor::from_data(images, &autodiff));
        let loss = loss.forward(logits, Tensor::from_data(targets, &autodiff));
        losses.push(loss.clone().into_scalar::<f32>().into());
        let mut gradients = GradientsParams::from_grads(loss.backward(), &network);
        if fault {
            let removed = gradients.remove::<2>(network.hidden.weight.id);
            assert!(removed.is_some());
        }
        network = optimizer.step(1.0, network, gradients);
    }
    Trained::new(losses, &network)
}

#[test]
fn the_plain_network_trains_on_a_gpu_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let (on_gpu, on_cpu) = (train_plain(&gpu), train_plain(&Device::flex()));
    let difference = on_gpu.difference(&on_cpu);
    println!("plain: {difference}");
    assert!(difference.is_small(), "{difference}");
}

#[test]
fn each_kind_of_layer_trains_on_a_gpu_as_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let cpu = train_kinds(&Device::flex(), STEPS, false);
    // It learns, so that there are gradients to compare.
    let last = cpu.losses[STEPS - BATCHES];
    assert!(last < cpu.losses[0], "{:?}", cpu.losses);
    let difference = train_kinds(&gpu, STEPS, false).difference(&cpu);
    println!("each kind of layer: {difference}");
    assert!(difference.is_small(), "{difference}");
}

#[test]
fn the_comparison_sees_a_gradient_that_is_missing() {
    let cpu = train_kinds(&Device::flex(), 2, false);
    for device in std::iter::once(Device::flex()).chain(gpu()) {
        let difference = train_kinds(&device, 2, true).difference(&cpu);
        assert!(difference.weights > 10.0 * TOLERANCE, "{difference}");
    }
}

/// Why `train.precision` has no bf16 here.
#[test]
fn wgpu_has_no_bfloat16() {
    let Some(gpu) = gpu() else { return };
    assert!(gpu.supports_dtype(FloatDType::F32));
    assert!(!gpu.supports_dtype(FloatDType::BF16));
}

#[test]
fn bisect() {
    let Some(gpu) = gpu() else { return };
    for v in ["acc", "bare"] {
        let run = |device: &Device| {
            const SIDE: usize = 16;
            let mut config = ModelConfig::new(Arch::Plain, SIDE as u32);
            config.classes.truncate(CLASSES);
            config.pooling = Some(Pooling::Average);
            let autodiff = device.clone().autodiff();
            let mut classifier = Classifier::new(&config.resolved().unwrap(), 0, &autodiff);
            fill(&mut classifier);
            let rule = StepRule {
                loss: bce(&autodiff),
                clip_norm: None,
                batch_size: if v == "acc" { SAMPLES / 2 } else { SAMPLES },
            };
            let optimizer = adadelta().init();
            let mut trainer = Trainer::new(classifier, optimizer, rule, device, (4, SIDE as u32));
            let losses: Vec<f64> = (0..3).map(|step| trainer.step(batch(step, 4, SIDE), 1.0, step as u64, 0)).collect();
            Trained::new(losses, trainer.classifier())
        };
        let (c0, g0) = (run(&Device::flex()), run(&gpu));
        for n in 0..4 {
            let (c, g) = (run(&Device::flex()), run(&gpu));
            println!("{v} {n} CPU same bits {} | GPU same bits {} GPU/GPU {} | GPU/CPU {}", c.tensors == c0.tensors, g.tensors == g0.tensors, g.difference(&g0), g.difference(&c0));
        }
    }
}

//! Compares convolutions and their gradients on a GPU with Burn's operations on the CPU.

use std::env;
use std::time::Instant;

use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::tensor::{Device, Tensor, TensorData};
use rgby::data::Batch;
use rgby::model::{Arch, Classifier, ModelConfig, fused};
use rgby::train::{Loss, LossConfig, OptimizerConfig, OptimizerName, StepConfig, Trainer};

use crate::devices::{gpu, gpu_name};
use crate::pytorch::noise;

/// Input side of the measured network in pixels.
const SIDE: usize = 64;
/// Number of classes of the measured network.
const CLASSES: usize = 5;

/// Padding above, to the left, below and to the right.
type Padding = [usize; 4];

/// Kernel, stride, padding, dilation and groups.
type ConvKind = ([usize; 2], [usize; 2], Padding, [usize; 2], usize);

/// The kinds of the imported networks, and others.
const KINDS: [ConvKind; 18] = [
    ([1, 1], [1, 1], [0; 4], [1, 1], 1),
    ([1, 1], [2, 2], [0; 4], [1, 1], 1),
    ([1, 1], [1, 1], [1; 4], [1, 1], 1),
    ([3, 3], [1, 1], [0; 4], [1, 1], 1),
    ([3, 3], [1, 1], [1; 4], [1, 1], 1),
    ([3, 3], [2, 2], [0; 4], [1, 1], 1),
    ([3, 3], [2, 2], [1; 4], [1, 1], 1),
    ([3, 3], [2, 2], [0, 0, 1, 1], [1, 1], 1),
    ([3, 3], [2, 1], [1, 0, 2, 1], [1, 1], 1),
    ([3, 3], [3, 3], [4; 4], [1, 1], 1),
    ([7, 7], [2, 2], [3; 4], [1, 1], 1),
    ([1, 7], [1, 1], [0, 3, 0, 3], [1, 1], 1),
    ([7, 1], [1, 1], [3, 0, 3, 0], [1, 1], 1),
    ([2, 4], [1, 1], [0, 1, 1, 2], [1, 1], 1),
    ([3, 3], [1, 1], [2; 4], [2, 2], 1),
    ([3, 3], [2, 2], [2, 0, 1, 3], [2, 1], 1),
    ([3, 3], [1, 1], [1; 4], [1, 1], 4),
    ([3, 3], [2, 2], [1; 4], [1, 1], 8),
];

/// Number of samples, input and output channels, height and width: channels that vector
/// instructions load together and others.
const SHAPES: [(usize, [usize; 2], [usize; 2]); 3] = [
    (1, [8, 24], [13, 11]),
    (3, [40, 32], [7, 9]),
    (9, [16, 72], [14, 15]),
];

/// Odd numbers of channels.
const ODD_SHAPE: (usize, [usize; 2], [usize; 2]) = (2, [5, 3], [14, 15]);

fn tensor<const D: usize>(name: &str, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = noise(name, shape.iter().product(), -1.0, 1.0);
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn numbers<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().iter::<f32>().collect()
}

/// Returns a layer whose parameters depend on their shapes alone.
fn layer(kind: &ConvKind, channels: [usize; 2], device: &Device) -> Conv2d {
    let &(kernel, stride, [top, left, bottom, right], dilation, groups) = kind;
    let config = Conv2dConfig::new(channels, kernel)
        .with_stride(stride)
        .with_padding(PaddingConfig2d::Explicit(top, left, bottom, right))
        .with_dilation(dilation)
        .with_groups(groups);
    let mut layer = config.init(device);
    let [inputs, outputs] = channels;
    let filters = [outputs, inputs / groups, kernel[0], kernel[1]];
    layer.weight = Param::from_tensor(tensor("filters", filters, device));
    layer.bias = Some(Param::from_tensor(tensor("bias", [outputs], device)));
    layer
}

/// Returns the output of a layer, and the gradients of its input and parameters.
fn run(
    kind: &ConvKind,
    (samples, channels, [height, width]): (usize, [usize; 2], [usize; 2]),
    device: &Device,
    forward: impl Fn(&Conv2d, Tensor<4>) -> Tensor<4>,
) -> [Vec<f32>; 4] {
    let device = device.clone().autodiff();
    let layer = layer(kind, channels, &device);
    let input = tensor("input", [samples, channels[0], height, width], &device).require_grad();
    let output = forward(&layer, input.clone());
    let weights = tensor("weights", output.dims(), &device);
    let gradients = (output.clone() * weights).sum().backward();
    let bias = layer.bias.as_ref().unwrap();
    [
        numbers(&output),
        numbers(&input.grad(&gradients).unwrap()),
        numbers(&layer.weight.val().grad(&gradients).unwrap()),
        numbers(&bias.val().grad(&gradients).unwrap()),
    ]
}

/// Returns the largest difference, relative to the largest value.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let scale = expected
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected);
    let apart = pairs.map(|(a, b)| (a - b).abs() / scale);
    apart.fold(0.0, |most, apart| {
        if apart.is_nan() {
            apart
        } else {
            most.max(apart)
        }
    })
}

#[test]
fn convolutions_on_a_gpu_agree_with_burn_on_the_cpu() {
    let Some(gpu) = gpu() else { return };
    // TensorFloat-32 on CUDA.
    let tolerance = if gpu_name().starts_with("cuda") {
        2e-3
    } else {
        1e-5
    };
    let mut most = 0.0_f32;
    for kind in &KINDS {
        let groups = kind.4;
        let odd = (groups == 1).then_some(ODD_SHAPE);
        for shape in SHAPES.into_iter().chain(odd) {
            let found = run(kind, shape, &gpu, fused::conv2d);
            let expected = run(kind, shape, &Device::flex(), |layer, x| layer.forward(x));
            for (part, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let apart = difference(found, expected);
                assert!(
                    apart <= tolerance,
                    "{kind:?} on {shape:?}, part {part}: {apart:e}"
                );
                most = most.max(apart);
            }
        }
    }
    println!("convolutions: {most:e}");
}

/// Prints the time of a training step of `ResNet50` with rgby's convolutions and with Burn's, in
/// turns. `RGBY_TEST_BATCH` and `RGBY_TEST_ROUNDS` set the batch size and the number of steps.
#[test]
#[ignore = "measures speed; run it alone"]
fn resnet50_step_is_faster_than_with_direct_convolutions() {
    let Some(gpu) = gpu() else { return };
    let setting = |name, or: usize| env::var(name).map_or(or, |text| text.parse().unwrap());
    let (samples, rounds) = (
        setting("RGBY_TEST_BATCH", 4),
        setting("RGBY_TEST_ROUNDS", 3),
    );
    let mut config = ModelConfig::new(Arch::ResNet50, SIDE as u32);
    config.classes.truncate(CLASSES);
    let config = config.resolved().unwrap();
    let autodiff = gpu.clone().autodiff();
    let trainer = || {
        let classifier = Classifier::new(&config, 0, &autodiff);
        let optimizer = OptimizerConfig::new(OptimizerName::Sgd).resolved().unwrap();
        let step_config = StepConfig {
            loss: Loss::new(&LossConfig::default(), &[0; CLASSES], 1, &autodiff),
            clip_norm: None,
            batch_size: samples,
        };
        let size = (config.channels.len(), SIDE as u32);
        Trainer::new(classifier, optimizer.init(), step_config, &gpu, size)
    };
    let pixels = samples * config.channels.len() * SIDE * SIDE;
    let batch = Batch {
        images: noise("images", pixels, -1.0, 1.0),
        targets: vec![1.0; samples * CLASSES],
        indices: (0..samples).collect(),
    };
    let mut trainers = [trainer(), trainer()];
    let mut seconds = [0.0; 2];
    let mut losses = [0.0; 2];
    for round in 0..=rounds {
        for (variant, trainer) in trainers.iter_mut().enumerate() {
            fused::set_fused(variant == 0);
            let start = Instant::now();
            let loss = trainer.submit(batch.clone(), 1e-4, round as u64, 0).read();
            // The first step compiles kernels.
            if round == 0 {
                losses[variant] = loss;
            } else {
                seconds[variant] += start.elapsed().as_secs_f64() / rounds as f64;
            }
        }
    }
    fused::set_fused(true);
    let [ours, direct] = seconds;
    let ratio = direct / ours;
    println!(
        "ResNet50 at {SIDE}, batches of {samples}: {ours:.2} s a step, {direct:.2} s with direct convolutions, ratio {ratio:.2}"
    );
    let apart = (losses[0] - losses[1]).abs() / losses[1];
    assert!(apart < 2e-3, "{losses:?}");
    assert!(ratio > 1.0);
}

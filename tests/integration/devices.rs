//! Compares training on a GPU with the CPU: steps from equal weights on equal batches.
//!
//! `RGBY_TEST_GPU` selects the GPU in the syntax of `--device`; the default is `wgpu`.
//! `VK_DRIVER_FILES` selects the Vulkan driver. Mesa's lavapipe and `SwiftShader` need no GPU.

use std::collections::BTreeMap;
use std::env;
use std::fmt;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use burn_store::{ModuleSnapshot, bridge};
use rgby::data::Batch;
use rgby::model::{Arch, Classifier, ModelConfig, Pooling};
use rgby::train::{
    Ema, Loss, LossConfig, OptimizerConfig, OptimizerConstants, OptimizerName, StepConfig,
    StepLoss, TrainDevice, Trainer,
};

use crate::layer_kinds::{CLASSES, Kinds, SIDE};
use crate::pytorch::noise;
use crate::support::not_applicable;

const STEPS: usize = 20;
const SAMPLES: usize = 6;
const BATCHES: usize = 4;

/// Rounding of a device, and the tolerated difference of two trainings.
struct Arithmetic {
    /// Relative perturbation of the inputs in the control training on the CPU.
    rounding: f32,
    /// Maximum number of steps after which a comparison is meaningful.
    steps: usize,
    /// Maximum differences, each relative to the largest value of a tensor.
    tolerance: TrainingDifference,
}

/// Several rounding errors of float32.
const FLOAT32: Arithmetic = Arithmetic {
    rounding: 1e-6,
    steps: STEPS,
    tolerance: TrainingDifference {
        loss: 1e-4,
        weights: 1e-4,
        statistics: 1e-4,
    },
};

/// One rounding error of TensorFloat-32, in which Burn multiplies on CUDA. Adadelta takes a full
/// step for the smallest gradient, whose sign can flip by rounding. Weights therefore have a larger
/// tolerance.
const TENSOR_FLOAT32: Arithmetic = Arithmetic {
    rounding: 5e-4,
    steps: 2,
    tolerance: TrainingDifference {
        loss: 2e-3,
        weights: 2e-2,
        statistics: 2e-3,
    },
};

/// Returns the arithmetic of the tested GPU.
fn arithmetic() -> Arithmetic {
    if gpu_name().contains("cuda") {
        TENSOR_FLOAT32
    } else {
        FLOAT32
    }
}

/// Returns the tested GPU in the syntax of `--device`.
pub fn gpu_name() -> String {
    env::var("RGBY_TEST_GPU").unwrap_or_else(|_| "wgpu".to_owned())
}

/// Opens the tested GPU, if available.
pub fn gpu() -> Option<Device> {
    match gpu_name().parse::<TrainDevice>().unwrap().open() {
        Ok(device) => Some(device),
        Err(reason) => {
            not_applicable(reason);
            None
        }
    }
}

/// The losses and final tensors of a training.
struct TrainingResult {
    losses: Vec<f64>,
    tensors: BTreeMap<String, Vec<f32>>,
}

/// Largest relative differences between two trainings.
#[derive(Debug, Default)]
struct TrainingDifference {
    loss: f64,
    weights: f64,
    statistics: f64,
}

impl TrainingResult {
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

    fn difference(&self, other: &Self) -> TrainingDifference {
        let mut most = TrainingDifference::default();
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

/// Returns the larger number; NaN is the largest.
fn larger(a: f64, b: f64) -> f64 {
    if b.is_nan() { b } else { a.max(b) }
}

impl TrainingDifference {
    fn is_within(&self, tolerance: &Self) -> bool {
        self.loss <= tolerance.loss
            && self.weights <= tolerance.weights
            && self.statistics <= tolerance.statistics
    }
}

impl fmt::Display for TrainingDifference {
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

/// Sets every parameter and running statistic to values that depend on its name alone.
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

/// Returns the batch of a step, with constant patches of side `patch`. Batches repeat, so that the
/// network can learn them. Inputs have a relative perturbation of up to `error`.
fn batch(step: usize, side: usize, patch: usize, error: f32) -> Batch {
    let number = step % BATCHES;
    let patches = side / patch;
    let count = SAMPLES * 4 * patches * patches;
    let gray = noise(&format!("images {number}"), count, -1.0, 1.0);
    let pixel = |at: usize| {
        let (plane, y, x) = (at / (side * side), at / side % side, at % side);
        gray[(plane * patches + y / patch) * patches + x / patch]
    };
    let pixels = SAMPLES * 4 * side * side;
    let errors = noise(&format!("errors {step}"), pixels, -error, error);
    let present = noise(&format!("targets {number}"), SAMPLES * CLASSES, 0.0, 1.0);
    Batch {
        images: (errors.iter().enumerate())
            .map(|(at, error)| pixel(at) * (1.0 + error))
            .collect(),
        targets: present
            .iter()
            .map(|value| f32::from(u8::from(*value < 0.4)))
            .collect(),
        indices: (0..SAMPLES).collect(),
    }
}

fn adadelta() -> OptimizerConfig {
    let optimizer = OptimizerConfig {
        constants: OptimizerConstants::PyTorch,
        ..OptimizerConfig::new(OptimizerName::Adadelta)
    };
    optimizer.resolved().unwrap()
}

fn bce(device: &Device) -> Loss {
    Loss::new(&LossConfig::default(), &[0; CLASSES], 1, device)
}

/// A network to train with [`Trainer`], and the number of steps for which this is well-conditioned:
/// in a large network, some ReLU is soon so close to zero that rounding decides its gradient.
struct DeviceCase {
    arch: Arch,
    side: usize,
    steps: usize,
    lr: f64,
}

const BASELINE: DeviceCase = DeviceCase {
    arch: Arch::Baseline,
    side: 12,
    steps: STEPS,
    lr: 1.0,
};

const PLAIN: DeviceCase = DeviceCase {
    arch: Arch::Plain,
    side: 16,
    steps: 5,
    lr: 0.1,
};

/// Trains a network with all options of a head, with all options of a step. Inputs have a relative
/// perturbation of up to `error`.
fn train(case: &DeviceCase, device: &Device, error: f32) -> TrainingResult {
    let size = case.side as u32;
    let mut config = ModelConfig::new(case.arch, size);
    config.classes.truncate(CLASSES);
    config.input_norm = true;
    config.projection = Some(12);
    config.pooling = Some(Pooling::AverageMax);
    config.hidden = vec![16];
    let autodiff = device.clone().autodiff();
    let mut classifier = Classifier::new(&config.resolved().unwrap(), 0, &autodiff);
    fill(&mut classifier);
    let step_config = StepConfig {
        loss: bce(&autodiff),
        clip_norm: Some(0.5),
        batch_size: SAMPLES / 2,
    };
    let average = Ema::new(&classifier, 0.9);
    let optimizer = adadelta().init();
    let trainer = Trainer::new(classifier, optimizer, step_config, device, (4, size));
    let mut trainer = trainer.with_ema(Some(average));
    let mut losses = Vec::new();
    for step in 0..case.steps.min(arithmetic().steps) {
        // If pooled samples hardly differ, BatchNorm amplifies their rounding errors.
        let batch = batch(step, case.side, case.side / 4, error);
        losses.push(trainer.submit(batch, case.lr, step as u64, 0));
    }
    let losses = losses.into_iter().map(StepLoss::read).collect();
    let mut result = TrainingResult::new(losses, trainer.classifier());
    let average = TrainingResult::new(Vec::new(), trainer.ema().unwrap());
    let average = average.tensors.into_iter();
    let named = average.map(|(name, values)| (format!("average of {name}"), values));
    result.tensors.extend(named);
    result
}

/// Trains [`Kinds`]. With `fault`, one dense layer gets no gradient, like a defect of one driver.
fn train_kinds(device: &Device, steps: usize, error: f32, fault: bool) -> TrainingResult {
    let autodiff = device.clone().autodiff();
    let mut network = Kinds::new(&autodiff);
    fill(&mut network);
    let (loss, mut optimizer) = (bce(&autodiff), adadelta().init());
    let mut losses = Vec::new();
    for step in 0..steps {
        // With larger patches, poolings would have ties.
        let batch = batch(step, SIDE, 1, error);
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
    TrainingResult::new(losses, &network)
}

/// Compares a training on the GPU with the CPU, after checking that rounding alone does not
/// separate two trainings on the CPU.
fn compare(name: &str, train: impl Fn(&Device, f32) -> TrainingResult) {
    let Some(gpu) = gpu() else { return };
    let Arithmetic {
        rounding,
        tolerance,
        ..
    } = arithmetic();
    let cpu = train(&Device::flex(), 0.0);
    let control = train(&Device::flex(), rounding).difference(&cpu);
    let well_conditioned = control.is_within(&tolerance);
    assert!(well_conditioned, "{name}, ill-conditioned: {control}");
    let difference = train(&gpu, 0.0).difference(&cpu);
    println!("{name}: {difference}; the CPU with inputs off by {rounding:e}: {control}");
    assert!(difference.is_within(&tolerance), "{name}: {difference}");
}

#[test]
fn baseline_trains_equally_on_gpu_and_cpu() {
    compare("baseline", |device, error| train(&BASELINE, device, error));
}

#[test]
fn plain_network_trains_equally_on_gpu_and_cpu() {
    compare("plain", |device, error| train(&PLAIN, device, error));
}

#[test]
fn each_kind_of_layer_trains_equally_on_gpu_and_cpu() {
    compare("each kind of layer", |device, error| {
        train_kinds(device, arithmetic().steps, error, false)
    });
}

#[test]
fn comparison_detects_a_missing_gradient() {
    let cpu = train_kinds(&Device::flex(), 2, 0.0, false);
    for device in std::iter::once(Device::flex()).chain(gpu()) {
        let difference = train_kinds(&device, 2, 0.0, true).difference(&cpu);
        println!("without a gradient: {difference}");
        let wanted = 5.0 * arithmetic().tolerance.loss;
        assert!(difference.loss > wanted, "{difference}");
    }
}

/// The reason why `train.precision` does not support bf16 on wgpu.
#[test]
fn wgpu_has_no_bfloat16() {
    let Some(gpu) = gpu() else { return };
    assert!(gpu.supports_dtype(FloatDType::F32));
    let wgpu = gpu_name().starts_with("wgpu");
    assert_eq!(gpu.supports_dtype(FloatDType::BF16), !wgpu);
}

//! A GPU computes what the CPU computes: steps from the same weights on the same batches.
//!
//! `RGBY_TEST_GPU` names it as `--device` does, `wgpu` unless it is set. For that `VK_DRIVER_FILES`
//! chooses the driver; two that need no GPU are Mesa's lavapipe and `SwiftShader`.

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
    Constants, Ema, Loss, LossConfig, OptimizerConfig, OptimizerName, StepLoss, StepRule,
    TrainDevice, Trainer,
};

use crate::layer_kinds::{CLASSES, Kinds, SIDE};
use crate::pytorch::noise;
use crate::support::not_applicable;

const STEPS: usize = 20;
const SAMPLES: usize = 6;
const BATCHES: usize = 4;

/// How a device rounds, and what two trainings may differ by.
struct Arithmetic {
    /// The CPU's inputs are off by this share of them in the control.
    rounding: f32,
    /// Most steps after which a comparison still means something.
    steps: usize,
    /// Largest differences, each relative to the largest value of a tensor.
    tolerance: Difference,
}

/// Several roundings of a float32.
const FLOAT32: Arithmetic = Arithmetic {
    rounding: 1e-6,
    steps: STEPS,
    tolerance: Difference {
        loss: 1e-4,
        weights: 1e-4,
        statistics: 1e-4,
    },
};

/// A rounding of TensorFloat-32, in which Burn multiplies on CUDA. Adadelta makes a full step of
/// the smallest gradient, whose sign it can turn; so of the weights less can be asked.
const TENSOR_FLOAT32: Arithmetic = Arithmetic {
    rounding: 5e-4,
    steps: 2,
    tolerance: Difference {
        loss: 2e-3,
        weights: 2e-2,
        statistics: 2e-3,
    },
};

/// How the GPU that is tested rounds.
fn arithmetic() -> Arithmetic {
    if gpu_name().starts_with("cuda") {
        TENSOR_FLOAT32
    } else {
        FLOAT32
    }
}

/// The GPU that is tested, as `--device` names it.
pub fn gpu_name() -> String {
    env::var("RGBY_TEST_GPU").unwrap_or_else(|_| "wgpu".to_owned())
}

/// That GPU, if there is one.
pub fn gpu() -> Option<Device> {
    match gpu_name().parse::<TrainDevice>().unwrap().open() {
        Ok(device) => Some(device),
        Err(reason) => {
            not_applicable(reason);
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
    fn is_within(&self, tolerance: &Self) -> bool {
        self.loss <= tolerance.loss
            && self.weights <= tolerance.weights
            && self.statistics <= tolerance.statistics
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

/// The batch of a step, of patches of that side; they come again, so that there is something to
/// learn. Inputs are off by a share of up to `error`.
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
        constants: Constants::PyTorch,
        ..OptimizerConfig::new(OptimizerName::Adadelta)
    };
    optimizer.resolved().unwrap()
}

fn bce(device: &Device) -> Loss {
    Loss::new(&LossConfig::default(), &[0; CLASSES], 1, device)
}

/// A network to train through [`Trainer`], and how far that is well-conditioned: in a large one
/// some ReLU soon lies so near to zero that one rounding decides over its gradient.
struct Case {
    arch: Arch,
    side: usize,
    steps: usize,
    lr: f64,
}

const BASELINE: Case = Case {
    arch: Arch::Baseline,
    side: 12,
    steps: STEPS,
    lr: 1.0,
};

const PLAIN: Case = Case {
    arch: Arch::Plain,
    side: 16,
    steps: 5,
    lr: 0.1,
};

/// A network with everything that a head can have, through everything that a step can do. Inputs
/// are off by a share of up to `error`.
fn train(case: &Case, device: &Device, error: f32) -> Trained {
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
    let rule = StepRule {
        loss: bce(&autodiff),
        clip_norm: Some(0.5),
        batch_size: SAMPLES / 2,
    };
    let average = Ema::new(&classifier, 0.9);
    let optimizer = adadelta().init();
    let trainer = Trainer::new(classifier, optimizer, rule, device, (4, size));
    let mut trainer = trainer.with_ema(Some(average));
    let mut losses = Vec::new();
    for step in 0..case.steps.min(arithmetic().steps) {
        // Where pooled samples hardly differ, BatchNorm makes much of their rounding.
        let batch = batch(step, case.side, case.side / 4, error);
        losses.push(trainer.submit(batch, case.lr, step as u64, 0));
    }
    let losses = losses.into_iter().map(StepLoss::read).collect();
    let mut result = Trained::new(losses, trainer.classifier());
    let average = Trained::new(Vec::new(), trainer.ema().unwrap());
    let average = average.tensors.into_iter();
    let named = average.map(|(name, values)| (format!("average of {name}"), values));
    result.tensors.extend(named);
    result
}

/// Trains [`Kinds`]; with `fault`, one dense layer gets no gradient, as one driver had it.
fn train_kinds(device: &Device, steps: usize, error: f32, fault: bool) -> Trained {
    let autodiff = device.clone().autodiff();
    let mut network = Kinds::new(&autodiff);
    fill(&mut network);
    let (loss, mut optimizer) = (bce(&autodiff), adadelta().init());
    let mut losses = Vec::new();
    for step in 0..steps {
        // In patches, poolings would meet ties.
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
    Trained::new(losses, &network)
}

/// Compares a training on the GPU with that on the CPU, once it is known that rounding alone does
/// not set two trainings on the CPU apart.
fn compare(name: &str, train: impl Fn(&Device, f32) -> Trained) {
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
fn the_baseline_trains_on_a_gpu_as_on_the_cpu() {
    compare("baseline", |device, error| train(&BASELINE, device, error));
}

#[test]
fn the_plain_network_trains_on_a_gpu_as_on_the_cpu() {
    compare("plain", |device, error| train(&PLAIN, device, error));
}

#[test]
fn each_kind_of_layer_trains_on_a_gpu_as_on_the_cpu() {
    compare("each kind of layer", |device, error| {
        train_kinds(device, arithmetic().steps, error, false)
    });
}

#[test]
fn the_comparison_sees_a_gradient_that_is_missing() {
    let cpu = train_kinds(&Device::flex(), 2, 0.0, false);
    for device in std::iter::once(Device::flex()).chain(gpu()) {
        let difference = train_kinds(&device, 2, 0.0, true).difference(&cpu);
        println!("without a gradient: {difference}");
        let wanted = 5.0 * arithmetic().tolerance.loss;
        assert!(difference.loss > wanted, "{difference}");
    }
}

/// Why `train.precision` has no bf16 here.
#[test]
fn only_cuda_has_bfloat16() {
    let Some(gpu) = gpu() else { return };
    assert!(gpu.supports_dtype(FloatDType::F32));
    let cuda = gpu_name().starts_with("cuda");
    assert_eq!(gpu.supports_dtype(FloatDType::BF16), cuda);
}

//! Compares 50 training steps of ResNet50 with PyTorch, with equal weights and batches.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, TensorData};
use burn_store::{ModuleSnapshot, bridge};
use rgby::data::Batch;
use rgby::graph::surgery::{Filter, fill_weights};
use rgby::graph::{ModelProto, read_bytes};
use rgby::model::{Arch, Classifier, ModelConfig, Pretrained};
use rgby::train::{
    Loss, LossConfig, OptimizerConfig, OptimizerConstants, OptimizerName, StepConfig, Trainer,
};
use safetensors::SafeTensors;
use serde_json::Value;

#[cfg(any(feature = "cuda", feature = "wgpu", feature = "torch"))]
use crate::devices::{gpu, gpu_name};
#[cfg(any(feature = "cuda", feature = "wgpu", feature = "torch"))]
use crate::support::not_applicable;

const STEPS: &str = include_str!("../golden/resnet50_steps.json");
const STATISTICS: &[u8] = include_bytes!("../golden/resnet50_steps.safetensors");
const BATCH: usize = 16;
const BATCHES: usize = 5;
const SIDE: usize = 64;
const PATCH: usize = 16;
const CLASSES: usize = 28;

/// Uniform values from `low` to `high`, each a hash of a name and an index; `noise` of the
/// generator script.
pub fn noise(name: &str, count: usize, low: f32, high: f32) -> Vec<f32> {
    let start = name.bytes().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let value = |place: usize| {
        let mut x = (place as u32).wrapping_mul(0x9E37_79B9).wrapping_add(start);
        x ^= x >> 16;
        x = x.wrapping_mul(0x7FEB_352D);
        x ^= x >> 15;
        x = x.wrapping_mul(0x846C_A68B);
        x ^= x >> 16;
        let unit = (x >> 8) as f32 / (1 << 24) as f32;
        low + (high - low) * unit
    };
    (0..count).map(value).collect()
}

/// Returns the three-channel file to convert; its classifier is not used.
fn export() -> ModelProto {
    let mut model = read_bytes(Arch::ResNet50.imported().unwrap().skeleton).unwrap();
    fill_weights(model.graph.mut_or_insert_default(), |op, input, tensor| {
        let count = tensor.dims.iter().product::<i64>() as usize;
        let (low, high) = match (op, input) {
            ("BatchNormalization", 1) if tensor.name.ends_with("bn3.weight") => (0.1, 0.3),
            ("BatchNormalization", 1 | 4) => (0.5, 1.5),
            ("BatchNormalization", _) => (-0.2, 0.2),
            _ => {
                let fan_in: i64 = tensor.dims[1..].iter().product();
                let bound = (6.0 / fan_in as f32).sqrt();
                (-bound, bound)
            }
        };
        noise(&tensor.name, count, low, high)
    });
    model
}

/// Returns the classifier with the generator's weights.
fn classifier(device: &Device) -> Classifier {
    let config = ModelConfig::new(Arch::ResNet50, SIDE as u32)
        .resolved()
        .unwrap();
    let channels = [Filter::Red, Filter::Green, Filter::Blue, Filter::Zero];
    let pretrained = Pretrained::new(export()).unwrap();
    let classifier = Classifier::new(&config, 0, device);
    let (mut classifier, _) = pretrained
        .load(Arch::ResNet50, &channels, classifier)
        .unwrap();
    // Burn stores a dense layer's weights transposed.
    let (rows, features) = (noise("fc.weight", CLASSES * 2048, -0.02, 0.02), 2048);
    let transposed = (0..features * CLASSES).map(|at| rows[at % CLASSES * features + at / CLASSES]);
    let transposed: Vec<f32> = transposed.collect();
    let bias = noise("fc.bias", CLASSES, -0.02, 0.02);
    let head = [
        ("head.output.weight", transposed, vec![features, CLASSES]),
        ("head.output.bias", bias, vec![CLASSES]),
    ];
    let head = head.map(|(name, values, shape)| {
        bridge::from_data(TensorData::new(values, shape), name.into(), None)
    });
    let applied = classifier.apply(head.to_vec(), None, None, true);
    assert_eq!(applied.applied.len(), 2);
    classifier
}

fn batch(number: usize) -> Batch {
    let patches = SIDE / PATCH;
    let gray = noise(
        &format!("images {number}"),
        BATCH * 4 * patches * patches,
        -1.0,
        1.0,
    );
    let pixel = |at: usize| {
        let (plane, y, x) = (at / (SIDE * SIDE), at / SIDE % SIDE, at % SIDE);
        gray[(plane * patches + y / PATCH) * patches + x / PATCH]
    };
    let present = noise(&format!("targets {number}"), BATCH * CLASSES, 0.0, 1.0);
    Batch {
        images: (0..BATCH * 4 * SIDE * SIDE).map(pixel).collect(),
        targets: present
            .iter()
            .map(|value| f32::from(u8::from(*value < 0.15)))
            .collect(),
        indices: (0..BATCH).collect(),
    }
}

/// Returns the largest difference of the running statistics, relative to each tensor's largest
/// value.
fn statistics_difference(classifier: &Classifier) -> f64 {
    let golden = SafeTensors::deserialize(STATISTICS).unwrap();
    let tensors = classifier.valid().collect(None, None, true);
    let found: BTreeMap<&str, &_> = tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), tensor))
        .collect();
    let table = Arch::ResNet50.imported().unwrap().weights;
    let mut largest = 0.0_f64;
    let mut compared = 0;
    for (path, initializer) in table.iter().filter(|(_, name)| name.contains("running")) {
        let tensor = found[format!("backbone.{path}").as_str()];
        let found = bridge::to_data(tensor).unwrap();
        let expected: Vec<f64> = golden
            .tensor(initializer)
            .unwrap()
            .data()
            .chunks_exact(4)
            .map(|word| f64::from(f32::from_le_bytes(word.try_into().unwrap())))
            .collect();
        assert_eq!(found.num_elements(), expected.len(), "{initializer}");
        let scale = expected.iter().fold(0.0_f64, |scale, v| scale.max(v.abs()));
        for (found, expected) in found.iter::<f64>().zip(expected) {
            largest = largest.max((found - expected).abs() / scale);
        }
        compared += 1;
    }
    assert_eq!(compared, golden.len());
    largest
}

#[test]
fn resnet50_trains_like_pytorch() {
    assert_trains_like_pytorch(&Device::flex());
}

#[cfg(any(feature = "cuda", feature = "wgpu", feature = "torch"))]
#[test]
fn resnet50_trains_on_a_gpu_like_pytorch() {
    if gpu_name() == "wgpu" {
        return not_applicable("software renderers take too long; RGBY_TEST_GPU names a real GPU");
    }
    if let Some(gpu) = gpu() {
        assert_trains_like_pytorch(&gpu);
    }
}

/// Returns a trainer of the network before its first step.
fn trainer(device: &Device) -> Trainer {
    let optimizer = OptimizerConfig {
        constants: OptimizerConstants::PyTorch,
        ..OptimizerConfig::new(OptimizerName::Adadelta)
    };
    let autodiff = device.clone().autodiff();
    let step_config = StepConfig {
        loss: Loss::new(&LossConfig::default(), &[0; CLASSES], 1, &autodiff),
        clip_norm: None,
        batch_size: BATCH,
    };
    Trainer::new(
        classifier(&autodiff),
        optimizer.resolved().unwrap().init(),
        step_config,
        device,
        (4, SIDE as u32),
    )
}

fn assert_trains_like_pytorch(device: &Device) {
    let golden: Value = serde_json::from_str(STEPS).unwrap();
    let losses = golden["losses"].as_array().unwrap();
    assert_eq!(losses.len(), 50);
    let mut trainer = trainer(device);
    let before = statistics_difference(trainer.classifier());
    let lr = golden["learning_rate"].as_f64().unwrap();
    let mut most = 0.0_f64;
    for (step, expected) in losses.iter().enumerate() {
        let loss = trainer.step(batch(step % BATCHES), lr, step as u64, 0);
        let expected = expected.as_f64().unwrap();
        let difference = (loss - expected).abs() / expected;
        most = most.max(difference);
        assert!(difference <= 0.01, "step {step}: {loss}, not {expected}");
    }
    let after = statistics_difference(trainer.classifier());
    println!("PyTorch's ResNet50: losses within {most:.1e}, running statistics {after:.1e}");
    assert!(after <= 1e-3, "running statistics: {after:e}");
    // They changed enough for the comparison to be meaningful.
    assert!(before > 0.1, "{before}");
}

/// The limit is the largest drift of PyTorch from itself with inputs off by up to 1e-6.
#[cfg(feature = "torch")]
#[test]
fn libtorch_differs_from_pytorch_less_than_pytorch_from_itself() {
    if gpu_name() != "torch:cpu" {
        return not_applicable("RGBY_TEST_GPU does not name torch:cpu");
    }
    let Some(device) = gpu() else { return };
    let golden: Value =
        serde_json::from_str(include_str!("../golden/resnet50_drift.json")).unwrap();
    let list = |values: &Value| -> Vec<f64> {
        let values = values.as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap()).collect()
    };
    let steps = serde_json::from_str::<Value>(STEPS).unwrap();
    let lr = steps["learning_rate"].as_f64().unwrap();
    let theirs = list(&golden["losses"]);
    let mut trainer = trainer(&device);
    let ours: Vec<f64> = (0..theirs.len())
        .map(|step| trainer.step(batch(step % BATCHES), lr, step as u64, 0))
        .collect();
    let apart = |other: &[f64]| {
        let pairs = theirs.iter().zip(other);
        pairs.fold(0.0_f64, |most, (a, b)| most.max((a - b).abs() / a))
    };
    let shifted = golden["shifted"].as_array().unwrap().iter();
    let drift = shifted
        .map(|losses| apart(&list(losses)))
        .fold(0.0, f64::max);
    let ours = apart(&ours);
    println!("losses within {ours:.1e} of PyTorch's, whose drift is {drift:.1e}");
    assert!(ours <= drift, "{ours:e}, but PyTorch drifts by {drift:e}");
}

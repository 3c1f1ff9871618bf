//! Step-by-step comparison of optimizers and BatchNorm with PyTorch and Keras.

use burn::module::{Module, Param};
use burn::optim::{GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use burn_store::{ModuleSnapshot, bridge};
use rgby::model::BatchNorm2d;
use rgby::train::{OptimizerConfig, OptimizerConstants, OptimizerName};
use safetensors::SafeTensors;
use serde_json::Value;

const ADADELTA: &str = include_str!("../golden/adadelta.json");
const ADAM: &str = include_str!("../golden/adam.json");
const BATCH_NORM: &[u8] = include_bytes!("../golden/batch_norm.safetensors");

#[derive(Module, Debug)]
struct ParameterVector {
    value: Param<Tensor<1>>,
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

/// Returns the largest difference over 100 steps, relative to the largest parameter of each step.
fn largest_difference(
    golden: &Value,
    expected: &str,
    mut optimizer: ModuleOptimizer,
    lr: f64,
) -> f64 {
    let device = Device::flex().autodiff();
    let tensor = |values: Vec<f64>| {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        let shape = [values.len()];
        Tensor::<1>::from_data(TensorData::new(values, shape), &device)
    };
    let mut vector = ParameterVector {
        value: Param::from_tensor(tensor(numbers(&golden["initial"]))),
    };
    let gradients = golden["gradients"].as_array().unwrap();
    let steps = golden[expected].as_array().unwrap();
    assert_eq!((gradients.len(), steps.len()), (100, 100));
    let mut largest = 0.0_f64;
    for (gradient, expected) in gradients.iter().zip(steps) {
        // The gradient of Σ p·g is g.
        let loss = (vector.value.val() * tensor(numbers(gradient))).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &vector);
        vector = optimizer.step(lr, vector, gradients);
        let found = vector.value.val().into_data();
        let expected = numbers(expected);
        let scale = expected.iter().fold(0.0_f64, |scale, v| scale.max(v.abs()));
        for (found, expected) in found.iter::<f64>().zip(expected) {
            largest = largest.max((found - expected).abs() / scale);
        }
    }
    largest
}

fn optimizer(
    name: OptimizerName,
    constants: OptimizerConstants,
    lr: Option<f64>,
) -> OptimizerConfig {
    OptimizerConfig {
        constants,
        lr,
        ..OptimizerConfig::new(name)
    }
    .resolved()
    .unwrap()
}

#[test]
fn adadelta_matches_pytorch_and_keras() {
    let golden: Value = serde_json::from_str(ADADELTA).unwrap();
    for (constants, expected) in [
        (OptimizerConstants::PyTorch, "pytorch_float64"),
        (OptimizerConstants::Keras208, "keras_2_0_8_float64"),
    ] {
        let config = optimizer(OptimizerName::Adadelta, constants, None);
        let difference = largest_difference(&golden, expected, config.init(), config.lr());
        assert!(difference <= 1e-6, "{expected}: {difference:e}");
    }
    // Checks that the comparison can fail: the constants of PyTorch and Keras differ.
    let config = optimizer(OptimizerName::Adadelta, OptimizerConstants::PyTorch, None);
    assert!(largest_difference(&golden, "keras_2_0_8_float64", config.init(), 1.0) > 1e-3);
}

#[test]
fn adam_matches_pytorch() {
    let golden: Value = serde_json::from_str(ADAM).unwrap();
    let config = optimizer(OptimizerName::Adam, OptimizerConstants::PyTorch, Some(1e-4));
    let difference = largest_difference(&golden, "pytorch_float64", config.init(), config.lr());
    assert!(difference <= 1e-6, "{difference:e}");
}

/// Golden tensors of one BatchNorm layer.
struct BatchNormCase<'a> {
    file: &'a SafeTensors<'a>,
    name: &'static str,
}

impl BatchNormCase<'_> {
    fn data(&self, tensor: &str) -> TensorData {
        let view = self
            .file
            .tensor(&format!("{}.{tensor}", self.name))
            .unwrap();
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|word| f32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        TensorData::new(values, view.shape().to_vec())
    }

    fn assert_equal(&self, found: &TensorData, tensor: &str) {
        let expected = self.data(tensor);
        assert_eq!(found.shape(), expected.shape(), "{}.{tensor}", self.name);
        for (found, expected) in found.iter::<f32>().zip(expected.iter::<f32>()) {
            let close = (found - expected).abs() <= 1e-5 * expected.abs().max(1.0);
            assert!(close, "{}.{tensor}: {found} for {expected}", self.name);
        }
    }
}

fn state(layer: &BatchNorm2d, name: &str) -> TensorData {
    // `valid` applies the pending statistics of the last batch.
    let tensors = layer.valid().collect(None, None, false);
    bridge::to_data(tensors.iter().find(|tensor| tensor.name == name).unwrap()).unwrap()
}

#[test]
fn batch_norm_matches_pytorch() {
    let file = SafeTensors::deserialize(BATCH_NORM).unwrap();
    for (name, features, epsilon) in [("torchvision", 3, 1e-5), ("timm", 5, 1e-3)] {
        let case = BatchNormCase { file: &file, name };
        let device = Device::flex().autodiff();
        let mut layer = BatchNorm2d::new(features, epsilon, 0.1, &device);
        let initial = [
            ("gamma", "gamma"),
            ("beta", "beta"),
            ("running_mean", "running_mean_0"),
            ("running_var", "running_var_0"),
        ];
        let tensors = initial
            .map(|(path, tensor)| bridge::from_data(case.data(tensor), path.to_owned(), None));
        assert!(
            layer
                .apply(tensors.to_vec(), None, None, false)
                .errors
                .is_empty()
        );

        for step in 1..=3 {
            let input = Tensor::<4>::from_data(case.data(&format!("input_{step}")), &device);
            let input = input.require_grad();
            let output = layer.forward(input.clone());
            case.assert_equal(&output.clone().into_data(), &format!("output_{step}"));
            for part in ["running_mean", "running_var"] {
                case.assert_equal(&state(&layer, part), &format!("{part}_{step}"));
            }
            if step == 1 {
                let weights = Tensor::<4>::from_data(case.data("w"), &device);
                let gradients = (output * weights).sum().backward();
                case.assert_equal(&input.grad(&gradients).unwrap().into_data(), "grad_input");
            }
        }
        let plain = device.without_autodiff();
        let input = Tensor::<4>::from_data(case.data("input_1"), &plain);
        case.assert_equal(&layer.valid().forward(input).into_data(), "output_eval");
    }
}

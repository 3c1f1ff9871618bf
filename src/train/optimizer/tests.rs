//! Compares update rules and defaults with PyTorch's.

use burn::module::{Module, Param};
use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use super::*;

const PROBLEM: &str = include_str!("../../../tests/golden/adadelta.json");
const GOLDEN: &str = include_str!("../../../tests/golden/optimizers.json");

/// A tensor with weight decay and one without.
#[derive(Module, Debug)]
struct ParameterPair {
    matrix: Param<Tensor<2>>,
    vector: Param<Tensor<1>>,
}

fn numbers(value: &Value) -> Vec<f64> {
    let list = value.as_array().unwrap();
    list.iter().map(|v| v.as_f64().unwrap()).collect()
}

/// Splits twelve values into a 2×4 matrix and a vector of 4.
fn split_values(values: &[f64]) -> (Tensor<2>, Tensor<1>) {
    let device = Device::flex().autodiff();
    let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let (matrix, vector) = (values[..8].to_vec(), values[8..].to_vec());
    (
        Tensor::from_data(TensorData::new(matrix, [2, 4]), &device),
        Tensor::from_data(TensorData::new(vector, [4]), &device),
    )
}

fn pair(values: &[f64]) -> ParameterPair {
    let (matrix, vector) = split_values(values);
    ParameterPair {
        matrix: Param::from_tensor(matrix),
        vector: Param::from_tensor(vector),
    }
}

fn values(pair: &ParameterPair) -> Vec<f64> {
    let matrix = pair.matrix.val().into_data();
    let vector = pair.vector.val().into_data();
    matrix.iter::<f64>().chain(vector.iter::<f64>()).collect()
}

/// Takes one step for each of `gradients`.
fn steps(
    mut pair: ParameterPair,
    optimizer: &mut ModuleOptimizer,
    lr: f64,
    gradients: &[Value],
) -> ParameterPair {
    for gradient in gradients {
        let (matrix, vector) = split_values(&numbers(gradient));
        let loss = (pair.matrix.val() * matrix).sum() + (pair.vector.val() * vector).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &pair);
        pair = optimizer.step(lr, pair, gradients);
    }
    pair
}

/// Returns the largest difference from the golden, relative to the largest parameter.
fn largest_difference(config: &OptimizerConfig, expected: &Value) -> f64 {
    let problem: Value = serde_json::from_str(PROBLEM).unwrap();
    let gradients = problem["gradients"].as_array().unwrap();
    let trace = expected["trace"].as_array().unwrap();
    assert_eq!((gradients.len(), trace.len()), (100, 10));
    let mut pair = pair(&numbers(&problem["initial"]));
    let mut optimizer = config.init();
    let mut largest = 0.0_f64;
    for (expected, gradients) in trace.iter().zip(gradients.chunks(10)) {
        pair = steps(pair, &mut optimizer, config.lr(), gradients);
        let expected = numbers(expected);
        let scale = expected.iter().fold(0.0_f64, |most, v| most.max(v.abs()));
        for (found, expected) in values(&pair).iter().zip(&expected) {
            largest = largest.max((found - expected).abs() / scale);
        }
    }
    largest
}

/// Returns the config of a golden case: its settings, defaults for the rest.
fn config(name: &str, settings: &Value) -> OptimizerConfig {
    let name = name.split('-').next().unwrap();
    let mut config =
        OptimizerConfig::new(serde_json::from_value(Value::String(name.into())).unwrap());
    config.lr = settings["lr"].as_f64();
    config.weight_decay = settings["weight_decay"].as_f64();
    config.momentum = settings["momentum"].as_f64();
    config.nesterov = settings["nesterov"].as_bool();
    config.resolved().unwrap()
}

#[test]
fn rules_follow_pytorch() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let cases = golden.as_object().unwrap().iter();
    let cases: Vec<_> = cases.filter(|(_, case)| case["trace"].is_array()).collect();
    assert_eq!(cases.len(), 8);
    for (name, case) in cases {
        let difference = largest_difference(&config(name, &case["settings"]), case);
        assert!(difference <= 1e-6, "{name}: {difference:e}");
    }
}

#[test]
fn the_comparison_can_fail() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let change = |name: &str, change: fn(&mut OptimizerConfig)| {
        let mut config = config(name, &golden[name]["settings"]);
        change(&mut config);
        largest_difference(&config, &golden[name])
    };
    for difference in [
        change("adam", |c| c.weight_decay = Some(0.0)),
        change("adamw", |c| c.weight_decay = Some(0.0)),
        change("adamw", |c| c.name = OptimizerName::Adam),
        change("sgd-momentum", |c| c.nesterov = Some(true)),
        change("sgd-momentum", |c| c.momentum = Some(0.89)),
    ] {
        assert!(difference > 1e-5, "{difference:e}");
    }
}

#[test]
fn defaults_match_the_frameworks() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let default = OptimizerConfig::new(OptimizerName::Adamw).resolved();
    let settings = &golden["adamw-defaults"]["settings"];
    assert_eq!(default.unwrap(), config("adamw", settings));
    let settings = &golden["sgd"]["settings"];
    let default = OptimizerConfig::new(OptimizerName::Sgd).resolved();
    assert_eq!(default.unwrap(), config("sgd", settings));
    let keras = |name| OptimizerConfig {
        constants: OptimizerConstants::Keras,
        ..OptimizerConfig::new(name)
    };
    let adamw = keras(OptimizerName::Adamw).resolved().unwrap();
    assert_eq!(
        (adamw.epsilon, adamw.weight_decay),
        (Some(1e-7), Some(0.004))
    );
    let sgd = keras(OptimizerName::Sgd).resolved().unwrap();
    assert_eq!((sgd.lr, sgd.weight_decay), (Some(0.01), Some(0.0)));
}

#[test]
fn a_resolved_config_resolves_to_itself() {
    for name in ["adadelta", "adam", "adamw", "sgd"] {
        for schedule in [
            ScheduleName::Constant,
            ScheduleName::Step,
            ScheduleName::Cosine,
        ] {
            let mut config = config(name, &Value::Null);
            config.schedule = schedule;
            let resolved = config.resolved().unwrap();
            assert_eq!(resolved.resolved().unwrap(), resolved);
        }
    }
}

#[test]
fn restored_state_continues_bit_identically() {
    let problem: Value = serde_json::from_str(PROBLEM).unwrap();
    let gradients = problem["gradients"].as_array().unwrap();
    for name in ["adadelta", "adam", "adamw", "sgd"] {
        let mut config = OptimizerConfig::new(config(name, &Value::Null).name);
        config.lr = Some(1e-3);
        config.momentum = (name == "sgd").then_some(0.9);
        config.weight_decay = Some(0.1);
        let config = config.resolved().unwrap();
        let mut optimizer = config.init();
        let start = pair(&numbers(&problem["initial"]));
        let halfway = steps(start, &mut optimizer, config.lr(), &gradients[..50]);
        let bytes = optimizer.into_bytes().unwrap();
        let mut restored = config.init().from_bytes(bytes).unwrap();
        let mut fresh = config.init();
        let end = |optimizer: &mut ModuleOptimizer| {
            values(&steps(
                halfway.clone(),
                optimizer,
                config.lr(),
                &gradients[50..],
            ))
        };
        let expected = end(&mut optimizer);
        assert_eq!(end(&mut restored), expected, "{name}");
        assert_ne!(end(&mut fresh), expected, "{name}");
    }
}

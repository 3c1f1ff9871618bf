//! Losses on logits.
//!
//! Every loss maps logits `[N, K]` and targets `[N, K]` of zeros and ones to a tensor `[1]`.
//! Neither the loss nor its gradient overflows for large logits.

mod bce;
mod config;
mod focal;
mod soft_f1;
mod weights;

pub use bce::bce;
pub use config::{LossConfig, LossName};
pub use focal::focal;
pub use soft_f1::soft_f1;
pub use weights::{ClassWeights, MAX_BALANCED_WEIGHT};

use burn::tensor::activation::log_sigmoid;
use burn::tensor::{Device, Tensor, TensorData};

/// A loss with its settings, on a device.
#[derive(Debug, Clone)]
pub struct Loss {
    kind: LossKind,
    smoothing: f64,
}

#[derive(Debug, Clone)]
enum LossKind {
    Bce {
        weights: Option<Tensor<2>>,
    },
    Focal {
        gamma: f64,
        weights: Option<Tensor<2>>,
    },
    SoftF1,
}

impl Loss {
    /// Creates the loss of a resolved config on `device`; the logits must be on the same device.
    ///
    /// `counts` `[K]` is the number of training samples of each class, `samples` their total
    /// number; only balanced weights use them.
    #[must_use]
    pub fn new(config: &LossConfig, counts: &[usize], samples: usize, device: &Device) -> Self {
        let weights = || {
            let weights = config.class_weights.resolved(counts, samples)?;
            let shape = [1, weights.len()];
            Some(Tensor::from_data(TensorData::new(weights, shape), device))
        };
        let kind = match config.name {
            LossName::Bce => LossKind::Bce { weights: weights() },
            LossName::Focal => LossKind::Focal {
                gamma: config.focal_gamma(),
                weights: weights(),
            },
            LossName::SoftF1 => LossKind::SoftF1,
        };
        Self {
            kind,
            smoothing: config.label_smoothing,
        }
    }

    /// Returns the loss `[1]` of logits `[N, K]` against targets `[N, K]` of zeros and ones.
    #[must_use]
    pub fn forward(&self, logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
        let targets = smooth(targets, self.smoothing);
        match &self.kind {
            LossKind::Bce { weights } => bce(logits, targets, weights.as_ref()),
            LossKind::Focal { gamma, weights } => focal(logits, targets, *gamma, weights.as_ref()),
            LossKind::SoftF1 => soft_f1(logits, targets),
        }
    }
}

/// Smooths labels: `y·(1−s) + s/2` with `s = smoothing`.
fn smooth(targets: Tensor<2>, smoothing: f64) -> Tensor<2> {
    if smoothing == 0.0 {
        targets
    } else {
        targets
            .mul_scalar(1.0 - smoothing)
            .add_scalar(smoothing / 2.0)
    }
}

/// Returns `log p` and `log(1−p)` of the probabilities `p` of logits. Both are finite, and their
/// gradients are correct at zero too, where `log(1+exp(−|x|))` has a kink.
fn log_probabilities(logits: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    (log_sigmoid(logits.clone()), log_sigmoid(logits.neg()))
}

/// Returns `−mean(w·y·positive + (1−y)·negative)`.
fn weighted_mean(
    (positive, negative): (Tensor<2>, Tensor<2>),
    targets: Tensor<2>,
    weights: Option<&Tensor<2>>,
) -> Tensor<1> {
    let absent = targets.clone().neg().add_scalar(1.0);
    let present = match weights {
        Some(weights) => targets * weights.clone(),
        None => targets,
    };
    (present * positive + absent * negative).mean().neg()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const GOLDEN: &str = include_str!("../../../tests/golden/losses.json");

    fn numbers(value: &Value) -> Vec<f64> {
        let list = value.as_array().unwrap();
        list.iter().map(|v| v.as_f64().unwrap()).collect()
    }

    fn tensor(values: &[f64], shape: [usize; 2], device: &Device) -> Tensor<2> {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Returns value and gradient at the logits of the golden.
    fn run(config: &LossConfig, golden: &Value) -> (f64, Vec<f64>) {
        let device = Device::flex().autodiff();
        let shape = [6, 5];
        assert_eq!(golden["shape"], serde_json::json!(shape));
        let logits = tensor(&numbers(&golden["logits"]), shape, &device).require_grad();
        let targets = tensor(&numbers(&golden["targets"]), shape, &device);
        let loss = Loss::new(config, &[], 0, &device).forward(logits.clone(), targets);
        assert_eq!(loss.dims(), [1]);
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let gradient = logits.grad(&loss.backward()).unwrap().into_data();
        (value, gradient.iter::<f64>().collect())
    }

    fn config(case: &Value) -> LossConfig {
        let weights = match &case["weights"] {
            Value::Null => ClassWeights::None,
            list => ClassWeights::Given(numbers(list).iter().map(|w| *w as f32).collect()),
        };
        let name = serde_json::from_value(case["loss"].clone()).unwrap();
        LossConfig {
            name,
            label_smoothing: case["label_smoothing"].as_f64().unwrap(),
            class_weights: weights,
            focal_gamma: (name == LossName::Focal).then(|| case["focal_gamma"].as_f64().unwrap()),
        }
        .resolved(5)
        .unwrap()
    }

    #[test]
    fn values_and_gradients_follow_pytorch() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 12);
        for case in cases {
            let about = (&case["loss"], &case["label_smoothing"], &case["weights"]);
            let (value, gradient) = run(&config(case), &golden);
            let expected = case["value"].as_f64().unwrap();
            assert!(
                (value - expected).abs() <= 1e-6 * expected,
                "{about:?}: {value} for {expected}"
            );
            let expected = numbers(&case["gradient"]);
            let largest = expected.iter().fold(0.0_f64, |most, g| most.max(g.abs()));
            for (found, expected) in gradient.iter().zip(&expected) {
                // Tight relative to the largest gradient, loose relative to the value itself.
                let apart = (found - expected).abs();
                assert!(
                    apart <= 1e-6 * largest && apart <= 1e-3 * expected.abs() + 1e-12,
                    "{about:?}: gradient {found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn every_setting_changes_the_loss() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        let mut values: Vec<f64> = cases.iter().map(|c| run(&config(c), &golden).0).collect();
        values.sort_by(f64::total_cmp);
        // Focal loss with gamma 0 is cross-entropy; all others differ.
        values.dedup_by(|a, b| (*a - *b).abs() <= 1e-6 * *b);
        assert_eq!(values.len(), 11, "{values:?}");
    }

    #[test]
    fn balanced_weights_follow_from_the_counts() {
        let device = Device::flex();
        let config = |class_weights| LossConfig {
            class_weights,
            ..LossConfig::default()
        };
        let (balanced, given) = (
            Loss::new(&config(ClassWeights::Balanced), &[1, 2], 4, &device),
            Loss::new(
                &config(ClassWeights::Given(vec![3.0, 1.0])),
                &[],
                0,
                &device,
            ),
        );
        let value = |loss: &Loss| {
            let logits = tensor(&[0.3, -1.0], [1, 2], &device);
            let targets = tensor(&[1.0, 1.0], [1, 2], &device);
            loss.forward(logits, targets).into_scalar::<f32>()
        };
        assert_eq!(value(&balanced).to_bits(), value(&given).to_bits());
        assert!(value(&given) > 1.0);
    }
}

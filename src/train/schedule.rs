//! Learning rate schedules.
//!
//! The rate of a step is a function of its number alone, so a resumed run needs no saved state.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Schedule of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleName {
    /// No change.
    #[default]
    Constant,
    /// Multiplied by a factor every few epochs; PyTorch's `StepLR`.
    Step,
    /// Reduced along half a cosine until the end of the run; PyTorch's `CosineAnnealingLR`.
    Cosine,
}

/// The learning rate of every step of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub lr: f64,
    /// Number of steps over which the rate rises linearly from `lr / warmup_steps` to `lr`.
    pub warmup_steps: u64,
    /// Reduction of the rate after the warm-up.
    pub decay: Decay,
}

/// The falling part of a [`Schedule`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decay {
    /// No reduction.
    Constant,
    /// Multiplied by `factor` every `epochs` epochs, counted from the start of the run.
    Step {
        /// Epochs between two reductions.
        epochs: u32,
        factor: f64,
    },
    /// Half a cosine from the end of the warm-up to the end of the run, where it reaches `min_lr`.
    Cosine {
        /// Lowest rate.
        min_lr: f64,
    },
}

impl Schedule {
    /// Returns the rate of step `step`, counted from 0, in a run of `total_steps`.
    #[must_use]
    pub fn lr(&self, step: u64, total_steps: u64, steps_per_epoch: u64) -> f64 {
        let lr = match self.decay {
            Decay::Constant => self.lr,
            Decay::Step { epochs, factor } => {
                let length = (u64::from(epochs) * steps_per_epoch).max(1);
                self.lr * factor.powf((step / length) as f64)
            }
            Decay::Cosine { min_lr } => {
                let length = total_steps.saturating_sub(self.warmup_steps).max(1);
                let done = step.saturating_sub(self.warmup_steps) as f64 / length as f64;
                min_lr + (self.lr - min_lr) * f64::midpoint(1.0, (PI * done.min(1.0)).cos())
            }
        };
        if step < self.warmup_steps {
            lr * ((step + 1) as f64 / self.warmup_steps as f64)
        } else {
            lr
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::train::{OptimizerConfig, OptimizerName};

    const GOLDEN: &str = include_str!("../../tests/golden/schedules.json");

    #[test]
    fn rates_follow_pytorch() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let number = |key: &str| golden[key].as_u64().unwrap();
        let (epochs, steps) = (number("epochs"), number("steps_per_epoch"));
        let cases = golden["cases"].as_array().unwrap();
        assert_eq!(cases.len(), 9);
        for case in cases {
            let mut config = OptimizerConfig::new(OptimizerName::Adam);
            config.lr = golden["lr"].as_f64();
            config.schedule = serde_json::from_value(case["schedule"].clone()).unwrap();
            config.warmup_steps = case["warmup_steps"].as_u64().unwrap_or(0);
            config.step_epochs = case["step_epochs"].as_u64().map(|epochs| epochs as u32);
            config.step_factor = case["step_factor"].as_f64();
            config.min_lr = case["min_lr"].as_f64();
            let schedule = config.resolved().unwrap().schedule();
            let rates = case["lr"].as_array().unwrap();
            assert_eq!(rates.len() as u64, epochs * steps);
            for (step, expected) in (0..).zip(rates) {
                let expected = expected.as_f64().unwrap();
                let found = schedule.lr(step, epochs * steps, steps);
                assert!(
                    (found - expected).abs() <= 1e-12,
                    "{config:?}, step {step}: {found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn rates_at_the_ends_of_warmup_and_decay() {
        let cosine = Schedule {
            lr: 1.0,
            warmup_steps: 10,
            decay: Decay::Cosine { min_lr: 0.25 },
        };
        let rate = |step| cosine.lr(step, 110, 7);
        assert_eq!((rate(0), rate(9), rate(10)), (0.1, 1.0, 1.0));
        assert!((rate(60) - 0.625).abs() < 1e-12, "{}", rate(60));
        // The last step is above the minimum; steps after the run are not.
        assert!(rate(109) > 0.25 && rate(109) < 0.251);
        assert_eq!((rate(110), rate(5000)), (0.25, 0.25));
        // A run shorter than the warm-up has no decay.
        assert_eq!((cosine.lr(4, 5, 5), cosine.lr(0, 5, 5)), (0.5, 0.1));
        let step = Schedule {
            decay: Decay::Step {
                epochs: 2,
                factor: 0.5,
            },
            ..cosine
        };
        // The decay applies during the warm-up too, so the rate does not jump at its end.
        assert_eq!((step.lr(8, 100, 4), step.lr(16, 100, 4)), (0.45, 0.25));
    }
}

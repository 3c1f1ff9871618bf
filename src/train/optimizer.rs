//! `[optimizer]` of a config: the update rule, its constants and the learning rate.

use burn::optim::momentum::MomentumConfig;
use burn::optim::{AdamConfig, ModuleOptimizer, Optimizer, SgdConfig};
use serde::{Deserialize, Serialize};

#[cfg(feature = "torch")]
use super::torch_rules::{TorchAdam, TorchSgd};
use super::weight_decay::{DecayKind, WeightDecay};
use super::{AdadeltaConfig, Decay, Schedule, ScheduleName};
#[cfg(feature = "torch")]
use crate::model::fused::torch::AdamConstants;

/// An update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerName {
    /// [`Adadelta`](super::Adadelta).
    Adadelta,
    /// Adam (Kingma and Ba 2014), Burn's implementation.
    Adam,
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2017).
    Adamw,
    /// Stochastic gradient descent with PyTorch's momentum: `v ← m·v + g`, `p ← p − lr·v`; Burn's
    /// implementation without dampening.
    Sgd,
}

/// The framework and version whose default constants are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum OptimizerConstants {
    /// PyTorch 2: Adadelta lr 1, ρ 0.9, ε 1e-6; Adam lr 1e-3, ε 1e-8; AdamW the same with
    /// weight decay 0.01; SGD lr 1e-3.
    #[default]
    #[serde(rename = "pytorch")]
    PyTorch,
    /// Keras 2.0.8, the version of the reference experiments: Adadelta lr 1, ρ 0.95, ε 1e-8; Adam
    /// lr 1e-3, ε 1e-8; SGD lr 0.01. It has no AdamW.
    #[serde(rename = "keras-2.0.8")]
    Keras208,
    /// Keras 3: Adadelta lr 1e-3, ρ 0.95, ε 1e-7; Adam lr 1e-3, ε 1e-7; AdamW the same with
    /// weight decay 0.004; SGD lr 0.01.
    #[serde(rename = "keras")]
    Keras,
}

/// `[optimizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Update rule.
    pub name: OptimizerName,
    /// Source of the defaults for keys that are not set.
    #[serde(default)]
    pub constants: OptimizerConstants,
    /// Learning rate after the warm-up and before any decay.
    pub lr: Option<f64>,
    /// Decay of Adadelta's running averages, 0–1.
    pub rho: Option<f32>,
    /// Added for numerical stability.
    pub epsilon: Option<f32>,
    /// Adam's decay of the mean gradient, 0–1.
    pub beta1: Option<f32>,
    /// Adam's decay of the mean squared gradient, 0–1.
    pub beta2: Option<f32>,
    /// Momentum of SGD, 0–1.
    pub momentum: Option<f64>,
    /// Whether SGD uses Nesterov momentum.
    pub nesterov: Option<bool>,
    /// Weight decay of all parameters except biases and BatchNorm's. Decoupled for `adamw`, added
    /// to the gradient for the others.
    pub weight_decay: Option<f64>,
    /// Schedule of the learning rate after the warm-up.
    #[serde(default)]
    pub schedule: ScheduleName,
    /// Number of steps over which the learning rate rises to `lr`.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Epochs between two reductions of the schedule `step`.
    pub step_epochs: Option<u32>,
    /// Factor of each reduction of the schedule `step`.
    pub step_factor: Option<f64>,
    /// Learning rate at the end of the schedule `cosine`.
    pub min_lr: Option<f64>,
}

impl OptimizerConfig {
    /// Creates a config with PyTorch's constants and a constant learning rate.
    #[must_use]
    pub fn new(name: OptimizerName) -> Self {
        Self {
            name,
            constants: OptimizerConstants::default(),
            lr: None,
            rho: None,
            epsilon: None,
            beta1: None,
            beta2: None,
            momentum: None,
            nesterov: None,
            weight_decay: None,
            schedule: ScheduleName::default(),
            warmup_steps: 0,
            step_epochs: None,
            step_factor: None,
            min_lr: None,
        }
    }

    /// Returns a copy in which every default is filled in.
    ///
    /// # Errors
    ///
    /// A message that names the key that is out of range or belongs to another rule.
    pub fn resolved(&self) -> Result<Self, String> {
        let defaults = self.defaults()?;
        let resolved = Self {
            lr: self.lr.or(defaults.lr),
            rho: given_or_default("rho", self.rho, defaults.rho, "adadelta")?,
            epsilon: given_or_default("epsilon", self.epsilon, defaults.epsilon, ADAPTIVE)?,
            beta1: given_or_default("beta1", self.beta1, defaults.beta1, "adam and adamw")?,
            beta2: given_or_default("beta2", self.beta2, defaults.beta2, "adam and adamw")?,
            momentum: given_or_default("momentum", self.momentum, defaults.momentum, "sgd")?,
            nesterov: given_or_default("nesterov", self.nesterov, defaults.nesterov, "sgd")?,
            weight_decay: self.weight_decay.or(defaults.weight_decay),
            step_epochs: given_or_default(
                "step_epochs",
                self.step_epochs,
                defaults.step_epochs,
                STEP,
            )?,
            step_factor: given_or_default(
                "step_factor",
                self.step_factor,
                defaults.step_factor,
                STEP,
            )?,
            min_lr: given_or_default("min_lr", self.min_lr, defaults.min_lr, "schedule cosine")?,
            ..self.clone()
        };
        resolved.validate()?;
        Ok(resolved)
    }

    /// Returns the defaults of this rule and schedule; `None` for keys that do not apply.
    fn defaults(&self) -> Result<Self, String> {
        use OptimizerConstants::{Keras, Keras208, PyTorch};
        let mut defaults = Self {
            weight_decay: Some(0.0),
            ..Self::new(self.name)
        };
        match self.name {
            OptimizerName::Adadelta => {
                let (lr, rho, epsilon) = match self.constants {
                    PyTorch => (1.0, 0.9, 1e-6),
                    Keras208 => (1.0, 0.95, 1e-8),
                    Keras => (1e-3, 0.95, 1e-7),
                };
                (defaults.lr, defaults.rho, defaults.epsilon) =
                    (Some(lr), Some(rho), Some(epsilon));
            }
            OptimizerName::Adam | OptimizerName::Adamw => {
                let keras = self.constants == Keras;
                defaults.lr = Some(1e-3);
                defaults.epsilon = Some(if keras { 1e-7 } else { 1e-8 });
                (defaults.beta1, defaults.beta2) = (Some(0.9), Some(0.999));
                if self.name == OptimizerName::Adamw {
                    if self.constants == Keras208 {
                        return Err("optimizer.constants is keras-2.0.8, which has no adamw\n\
                                    hint: use keras or pytorch"
                            .into());
                    }
                    defaults.weight_decay = Some(if keras { 0.004 } else { 0.01 });
                }
            }
            OptimizerName::Sgd => {
                let pytorch = self.constants == PyTorch;
                defaults.lr = Some(if pytorch { 1e-3 } else { 0.01 });
                (defaults.momentum, defaults.nesterov) = (Some(0.0), Some(false));
            }
        }
        match self.schedule {
            ScheduleName::Constant => {}
            ScheduleName::Step => {
                (defaults.step_epochs, defaults.step_factor) = (Some(30), Some(0.1));
            }
            ScheduleName::Cosine => defaults.min_lr = Some(0.0),
        }
        Ok(defaults)
    }

    fn validate(&self) -> Result<(), String> {
        let at_least_0 = [
            ("lr", self.lr),
            ("weight_decay", self.weight_decay),
            ("step_factor", self.step_factor),
            ("min_lr", self.min_lr),
        ];
        for (field, value) in at_least_0 {
            if let Some(value) = value.filter(|v| !v.is_finite() || *v < 0.0) {
                return Err(format!(
                    "optimizer.{field} is {value}; it must be at least 0"
                ));
            }
        }
        if self.epsilon.is_some_and(|e| !e.is_finite() || e <= 0.0) {
            return Err("optimizer.epsilon must be greater than 0".into());
        }
        let fractions = [
            ("rho", self.rho.map(f64::from)),
            ("beta1", self.beta1.map(f64::from)),
            ("beta2", self.beta2.map(f64::from)),
            ("momentum", self.momentum),
        ];
        for (field, value) in fractions {
            if value.is_some_and(|v| !(0.0..1.0).contains(&v)) {
                return Err(format!("optimizer.{field} must be at least 0 and below 1"));
            }
        }
        if self.nesterov == Some(true) && self.momentum == Some(0.0) {
            return Err(
                "optimizer.nesterov requires optimizer.momentum above 0\nhint: set it to 0.9"
                    .into(),
            );
        }
        if self.step_epochs == Some(0) {
            return Err("optimizer.step_epochs is 0; it must be at least 1".into());
        }
        match self.min_lr {
            Some(min_lr) if min_lr > self.lr() => Err(format!(
                "optimizer.min_lr is {min_lr}; it must be at most optimizer.lr, {}",
                self.lr()
            )),
            _ => Ok(()),
        }
    }

    /// Returns the learning rate of a resolved config, without its schedule.
    #[must_use]
    pub fn lr(&self) -> f64 {
        self.lr.unwrap_or(1.0)
    }

    /// Returns the schedule of a resolved config.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule {
            lr: self.lr(),
            warmup_steps: self.warmup_steps,
            decay: match self.schedule {
                ScheduleName::Constant => Decay::Constant,
                ScheduleName::Step => Decay::Step {
                    epochs: self.step_epochs.unwrap_or(30),
                    factor: self.step_factor.unwrap_or(0.1),
                },
                ScheduleName::Cosine => Decay::Cosine {
                    min_lr: self.min_lr.unwrap_or(0.0),
                },
            },
        }
    }

    /// Creates the optimizer of a resolved config, without state.
    #[must_use]
    pub fn init(&self) -> ModuleOptimizer {
        let epsilon = self.epsilon.unwrap_or(1e-8);
        match self.name {
            OptimizerName::Adadelta => self.with_weight_decay(
                AdadeltaConfig {
                    rho: self.rho.unwrap_or(0.9),
                    epsilon,
                }
                .build(),
            ),
            OptimizerName::Adam | OptimizerName::Adamw => {
                let (beta1, beta2) = (self.beta1.unwrap_or(0.9), self.beta2.unwrap_or(0.999));
                let rule = AdamConfig::new()
                    .with_beta_1(beta1)
                    .with_beta_2(beta2)
                    .with_epsilon(epsilon)
                    .build();
                #[cfg(feature = "torch")]
                let rule = TorchAdam {
                    rule,
                    constants: AdamConstants {
                        beta1: beta1.into(),
                        beta2: beta2.into(),
                        epsilon: epsilon.into(),
                    },
                };
                self.with_weight_decay(rule)
            }
            OptimizerName::Sgd => {
                let momentum = self.momentum.filter(|m| *m > 0.0).map(|momentum| {
                    MomentumConfig::new()
                        .with_momentum(momentum)
                        .with_dampening(0.0)
                        .with_nesterov(self.nesterov == Some(true))
                });
                #[cfg(feature = "torch")]
                if momentum.is_none() {
                    let rule = SgdConfig::new().build();
                    return self.with_weight_decay(TorchSgd { rule });
                }
                self.with_weight_decay(SgdConfig::new().with_momentum(momentum).build())
            }
        }
    }

    /// Wraps `rule` in this config's weight decay.
    fn with_weight_decay(&self, rule: impl Optimizer) -> ModuleOptimizer {
        let kind = match self.name {
            OptimizerName::Adamw => DecayKind::Decoupled,
            _ => DecayKind::L2,
        };
        let rate = self.weight_decay.unwrap_or(0.0);
        WeightDecay { rule, rate, kind }.init()
    }
}

const ADAPTIVE: &str = "adadelta, adam and adamw";
const STEP: &str = "schedule step";

/// Returns `given` or else its default. If there is no default, the key belongs to another rule.
fn given_or_default<T>(
    field: &str,
    given: Option<T>,
    default: Option<T>,
    owner: &str,
) -> Result<Option<T>, String> {
    if given.is_some() && default.is_none() {
        return Err(format!(
            "optimizer.{field} applies only to {owner}\nhint: remove it"
        ));
    }
    Ok(given.or(default))
}

#[cfg(test)]
mod tests;

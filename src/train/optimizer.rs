//! `[optimizer]` of a config: which rule, with whose constants.

use burn::optim::{AdamConfig, ModuleOptimizer};
use serde::{Deserialize, Serialize};

use super::AdadeltaConfig;

/// An update rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerName {
    /// [`Adadelta`](super::Adadelta).
    Adadelta,
    /// Adam (Kingma and Ba 2014), Burn's implementation.
    Adam,
}

/// Whose defaults fill in what a config leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Constants {
    /// PyTorch 2: Adadelta lr 1, ρ 0.9, ε 1e-6; Adam lr 1e-3, ε 1e-8.
    #[default]
    #[serde(rename = "pytorch")]
    PyTorch,
    /// Keras 2.0.8, the reference's version: Adadelta lr 1, ρ 0.95, ε 1e-8; Adam lr 1e-3, ε 1e-8.
    #[serde(rename = "keras-2.0.8")]
    Keras208,
    /// Keras 3: Adadelta lr 1e-3, ρ 0.95, ε 1e-7; Adam lr 1e-3, ε 1e-7.
    #[serde(rename = "keras")]
    Keras,
}

/// `[optimizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// The rule.
    pub name: OptimizerName,
    /// Whose defaults apply to what is left out.
    #[serde(default)]
    pub constants: Constants,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Decay of Adadelta's averages, 0–1.
    pub rho: Option<f32>,
    /// Added for numerical stability.
    pub epsilon: Option<f32>,
    /// Adam's decay of the mean gradient, 0–1.
    pub beta1: Option<f32>,
    /// Adam's decay of the mean squared gradient, 0–1.
    pub beta2: Option<f32>,
}

impl OptimizerConfig {
    /// A rule with PyTorch's constants.
    #[must_use]
    pub fn new(name: OptimizerName) -> Self {
        Self {
            name,
            constants: Constants::default(),
            lr: None,
            rho: None,
            epsilon: None,
            beta1: None,
            beta2: None,
        }
    }

    /// The same with every number written out.
    ///
    /// # Errors
    ///
    /// A sentence that names a number which is out of range or belongs to another rule.
    pub fn resolved(&self) -> Result<Self, String> {
        let (adadelta, lr, rho, epsilon) = match (self.name, self.constants) {
            (OptimizerName::Adadelta, Constants::PyTorch) => (true, 1.0, 0.9, 1e-6),
            (OptimizerName::Adadelta, Constants::Keras208) => (true, 1.0, 0.95, 1e-8),
            (OptimizerName::Adadelta, Constants::Keras) => (true, 1e-3, 0.95, 1e-7),
            (OptimizerName::Adam, Constants::Keras) => (false, 1e-3, 0.0, 1e-7),
            (OptimizerName::Adam, _) => (false, 1e-3, 0.0, 1e-8),
        };
        let foreign = if adadelta {
            self.beta1
                .or(self.beta2)
                .map(|_| "beta1 and beta2 belong to adam")
        } else {
            self.rho.map(|_| "rho belongs to adadelta")
        };
        if let Some(reason) = foreign {
            return Err(format!("optimizer.{reason}; take it out"));
        }
        let resolved = Self {
            lr: Some(self.lr.unwrap_or(lr)),
            rho: adadelta.then(|| self.rho.unwrap_or(rho)),
            epsilon: Some(self.epsilon.unwrap_or(epsilon)),
            beta1: (!adadelta).then(|| self.beta1.unwrap_or(0.9)),
            beta2: (!adadelta).then(|| self.beta2.unwrap_or(0.999)),
            ..self.clone()
        };
        if !resolved.lr().is_finite() || resolved.lr() < 0.0 {
            return Err(format!(
                "optimizer.lr is {}; it must be 0 or more",
                resolved.lr()
            ));
        }
        if resolved
            .epsilon
            .is_some_and(|epsilon| !epsilon.is_finite() || epsilon <= 0.0)
        {
            return Err("optimizer.epsilon must be more than 0".into());
        }
        let decays = [
            ("rho", resolved.rho),
            ("beta1", resolved.beta1),
            ("beta2", resolved.beta2),
        ];
        match decays
            .iter()
            .find(|(_, decay)| decay.is_some_and(|d| !(0.0..1.0).contains(&d)))
        {
            Some((field, _)) => Err(format!(
                "optimizer.{field} must be at least 0 and less than 1"
            )),
            None => Ok(resolved),
        }
    }

    /// Learning rate of a resolved config.
    #[must_use]
    pub fn lr(&self) -> f64 {
        self.lr.unwrap_or(1.0)
    }

    /// The optimizer of a resolved config, without state.
    #[must_use]
    pub fn init(&self) -> ModuleOptimizer {
        let epsilon = self.epsilon.unwrap_or(1e-8);
        match self.name {
            OptimizerName::Adadelta => AdadeltaConfig {
                rho: self.rho.unwrap_or(0.9),
                epsilon,
            }
            .init(),
            OptimizerName::Adam => AdamConfig::new()
                .with_beta_1(self.beta1.unwrap_or(0.9))
                .with_beta_2(self.beta2.unwrap_or(0.999))
                .with_epsilon(epsilon)
                .init(),
        }
    }
}

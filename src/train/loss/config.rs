//! The keys of `[train]` that define the loss.

use serde::{Deserialize, Serialize};

use super::ClassWeights;

/// A loss function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossName {
    /// [`bce`](super::bce()).
    #[default]
    Bce,
    /// [`focal`](super::focal()).
    Focal,
    /// [`soft_f1`](super::soft_f1()).
    SoftF1,
}

/// A loss and its settings. In a config they are among the other keys of `[train]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LossConfig {
    /// `train.loss`.
    pub name: LossName,
    /// `train.label_smoothing`: fraction of each target that is replaced by 1/2.
    pub label_smoothing: f64,
    /// `train.class_weights`.
    pub class_weights: ClassWeights,
    /// `train.focal_gamma`: how much the loss of well-classified samples is reduced.
    pub focal_gamma: Option<f64>,
}

impl LossConfig {
    /// The value of the paper (Lin et al. 2017).
    pub const DEFAULT_GAMMA: f64 = 2.0;

    /// Returns a copy in which every default is filled in, for a network with `classes` classes.
    ///
    /// # Errors
    ///
    /// A message that names the key that is out of range or belongs to another loss.
    pub fn resolved(&self, classes: usize) -> Result<Self, String> {
        self.class_weights.validate(classes)?;
        let smoothing = self.label_smoothing;
        if !(0.0..1.0).contains(&smoothing) {
            return Err(format!(
                "train.label_smoothing is {smoothing}; it must be at least 0 and below 1"
            ));
        }
        let focal = self.name == LossName::Focal;
        if !focal && self.focal_gamma.is_some() {
            return Err("train.focal_gamma applies only to the loss focal\nhint: remove it".into());
        }
        if self.name == LossName::SoftF1 && self.class_weights != ClassWeights::None {
            return Err(
                "train.class_weights applies only to the losses bce and focal: soft-f1 weights all \
                 classes equally\nhint: remove it"
                    .into(),
            );
        }
        let gamma = self.focal_gamma();
        if !gamma.is_finite() || gamma < 0.0 {
            return Err(format!(
                "train.focal_gamma is {gamma}; it must be at least 0"
            ));
        }
        Ok(Self {
            focal_gamma: focal.then_some(gamma),
            ..self.clone()
        })
    }

    pub(super) fn focal_gamma(&self) -> f64 {
        self.focal_gamma.unwrap_or(Self::DEFAULT_GAMMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_key() {
        let base = LossConfig::default();
        let with = |change: fn(&mut LossConfig)| {
            let mut config = base.clone();
            change(&mut config);
            config.resolved(2)
        };
        for (result, wanted) in [
            (
                with(|c| c.label_smoothing = 1.0),
                "train.label_smoothing is 1;",
            ),
            (with(|c| c.label_smoothing = f64::NAN), "label_smoothing"),
            (
                with(|c| c.focal_gamma = Some(2.0)),
                "applies only to the loss focal",
            ),
            (
                with(|c| (c.name, c.focal_gamma) = (LossName::Focal, Some(-1.0))),
                "train.focal_gamma is -1;",
            ),
            (
                with(|c| (c.name, c.class_weights) = (LossName::SoftF1, ClassWeights::Balanced)),
                "soft-f1 weights all classes equally",
            ),
            (
                with(|c| c.class_weights = ClassWeights::Given(vec![])),
                "0 numbers for 2",
            ),
        ] {
            let error = result.unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        let focal = with(|c| c.name = LossName::Focal).unwrap();
        assert_eq!(focal.focal_gamma, Some(2.0));
        assert_eq!(base.resolved(28).unwrap(), base);
    }
}

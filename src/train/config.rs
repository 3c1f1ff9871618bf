//! A training run's config: one TOML file of four tables, overridden by `--set`.

mod overrides;

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use self::overrides::set;
use super::did_you_mean::suggestion;
use super::{ClassWeights, LossConfig, LossName, OptimizerConfig, TrainPrecision};
use crate::data::{AugmentConfig, CacheForm, Sampler, Split};
use crate::imaging::{Preprocess, Resize};
use crate::model::ModelConfig;

/// Everything that decides how a run goes, but for paths and devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// How long, how much at a time.
    pub train: TrainConfig,
    /// The update rule.
    pub optimizer: OptimizerConfig,
    /// From files to inputs.
    #[serde(default)]
    pub data: DataConfig,
}

/// `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes; each ends with a validation, a row of metrics and a checkpoint.
    pub epochs: u32,
    /// Steps in an epoch; the whole training set if absent.
    pub steps_per_epoch: Option<usize>,
    /// Samples in memory at a time.
    pub batch_size: usize,
    /// Validation batches an epoch; the whole validation set if absent.
    pub validation_steps: Option<usize>,
    /// How many of the epochs with the lowest validation loss stay in `checkpoints/epoch-N`.
    #[serde(default)]
    pub keep_top: usize,
    /// Epochs without a lower validation loss after which the run ends; never if absent.
    pub patience: Option<u32>,
    /// The numbers that it computes with: `fp32`.
    #[serde(default)]
    pub precision: TrainPrecision,
    /// Seed of weights, order and dropout.
    #[serde(default)]
    pub seed: u64,
    /// Parts of the run, from its first epoch on; epochs that are left after them train everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// What is minimised.
    #[serde(default)]
    pub loss: LossName,
    /// Share of each target that is replaced by 1/2, 0–1.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Factors of the positive samples of each class, for `bce` and `focal`.
    #[serde(default)]
    pub class_weights: ClassWeights,
    /// How far `focal` discounts samples that are right already; 2 if absent.
    pub focal_gamma: Option<f64>,
    /// Longest global L2 norm of a step's gradient; no limit if absent.
    pub clip_norm: Option<f64>,
    /// Decay of an average of the weights, which then is validated and saved; none if absent.
    pub ema: Option<f64>,
    /// Whether cheap layers are computed again in the backward pass instead of kept in memory.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Batches whose mean gradient makes one step.
    #[serde(default = "one")]
    pub accumulate: usize,
}

impl TrainConfig {
    /// The loss and its settings.
    #[must_use]
    pub fn loss(&self) -> LossConfig {
        LossConfig {
            name: self.loss,
            label_smoothing: self.label_smoothing,
            class_weights: self.class_weights.clone(),
            focal_gamma: self.focal_gamma,
        }
    }

    /// The stage that an epoch (from 0) belongs to, and the stage's first epoch.
    #[must_use]
    pub fn stage(&self, epoch: u32) -> (u32, Stage) {
        let mut first = 0;
        for stage in &self.stages {
            if epoch < first + stage.epochs {
                return (first, stage.clone());
            }
            first += stage.epochs;
        }
        let rest = Stage {
            epochs: self.epochs - first,
            ..Stage::default()
        };
        (first, rest)
    }

    /// `device` with gradients, as the settings here want them.
    #[must_use]
    pub fn with_gradients(&self, device: &Device) -> Device {
        let device = device.clone().autodiff();
        if self.gradient_checkpointing {
            return device.gradient_checkpointing();
        }
        device
    }

    /// Samples a step.
    #[must_use]
    pub fn step_size(&self) -> usize {
        self.batch_size * self.accumulate
    }

    /// Checks what the types cannot, and writes out the loss's defaults.
    fn resolve(&mut self, classes: usize) -> Result<(), String> {
        self.precision.check()?;
        for (field, value) in [
            ("epochs", self.epochs as usize),
            ("batch_size", self.batch_size),
            ("steps_per_epoch", self.steps_per_epoch.unwrap_or(1)),
            ("accumulate", self.accumulate),
            ("validation_steps", self.validation_steps.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1) as usize),
        ] {
            if value == 0 {
                return Err(format!("train.{field} is 0; it must be at least 1"));
            }
        }
        let staged: u64 = self
            .stages
            .iter()
            .map(|stage| u64::from(stage.epochs))
            .sum();
        if staged > u64::from(self.epochs) {
            return Err(format!(
                "train.stages take {staged} epochs of {}; raise train.epochs or shorten them",
                self.epochs
            ));
        }
        for stage in &self.stages {
            if stage.epochs == 0 {
                return Err("train.stages holds one of 0 epochs; take it out".into());
            }
            if let Some(lr) = stage.lr.filter(|lr| !lr.is_finite() || *lr < 0.0) {
                return Err(format!("train.stages holds lr {lr}; it must be 0 or more"));
            }
        }
        if let Some(norm) = self.clip_norm.filter(|n| !n.is_finite() || *n <= 0.0) {
            return Err(format!(
                "train.clip_norm is {norm}; it must be above 0, or leave it out for no limit"
            ));
        }
        if let Some(decay) = self.ema.filter(|d| *d <= 0.0 || !(0.0..1.0).contains(d)) {
            return Err(format!(
                "train.ema is {decay}; it must be between 0 and 1, or leave it out for no average"
            ));
        }
        self.focal_gamma = self.loss().resolved(classes)?.focal_gamma;
        Ok(())
    }
}

/// A part of a run with rules of its own; it starts with a new optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// How long it lasts.
    pub epochs: u32,
    /// Beginnings of the names of parameters that stay as they are; see [`crate::model::freeze`].
    #[serde(default)]
    pub freeze: Vec<String>,
    /// Learning rate; the optimizer's if absent.
    pub lr: Option<f64>,
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// `none`, `third-fold`, `random:FRACTION`, `kfold:I/K`, `stratified:I/K` or `file:CSV`.
    pub split: Split,
    /// `shuffle` or `balanced`.
    pub sampler: Sampler,
    /// Share of the samples below which a class is repeated by the balanced sampler.
    pub balance_threshold: f64,
    /// Filter of the resize to the input size.
    pub resize: Resize,
    /// Subtracted from each channel after scaling to 0–1; one for all, or one a channel.
    pub mean: Vec<f32>,
    /// Divides each channel after that; one for all, or one a channel.
    pub std: Vec<f32>,
    /// Threads that decode images.
    pub workers: usize,
    /// Random variation of the training samples.
    pub augment: AugmentConfig,
}

impl Default for DataConfig {
    /// The reference's split and normalisation.
    fn default() -> Self {
        Self {
            split: Split::ThirdFold,
            sampler: Sampler::Shuffle,
            balance_threshold: 0.05,
            resize: Resize::Bilinear,
            mean: vec![0.5],
            std: vec![0.5],
            workers: 2,
            augment: AugmentConfig::default(),
        }
    }
}

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Syntax, an unknown key, a missing key or a value of the wrong type.
    #[error("{path}: {message}")]
    Toml {
        /// The file, or the override that is to blame.
        path: String,
        /// The parser's sentence, with the place.
        message: String,
    },
    /// An override that is not `table.key=value`.
    #[error("--set {0}: write it as table.key=value, for example train.epochs=3")]
    Override(String),
    /// A value out of range.
    #[error("{path}: {message}")]
    Invalid {
        /// The file, or the override that is to blame.
        path: String,
        /// The field and the mend.
        message: String,
    },
}

impl Config {
    /// Reads a config, applies overrides and fills in every default.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the file, the field and the mend.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io {
            path: name.clone(),
            source,
        })?;
        Self::parse(&name, &text, overrides)
    }

    /// As [`read`](Self::read), from text; `name` stands in the errors that no override brought.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        Self::merged(name, text, overrides).or_else(|error| {
            // The last of those without which it is not this error is to blame; the file, if it is
            // wrong by itself.
            let is_there = |&count: &usize| {
                let begun = Self::merged(name, text, &overrides[..count]);
                begun.is_err_and(|begun| count == 0 || begun.to_string() == error.to_string())
            };
            let needed = (0..=overrides.len()).find(is_there);
            match needed.and_then(|count| overrides[..count].last()) {
                Some(last) => Self::merged(&format!("--set {last}"), text, overrides),
                None => Err(error),
            }
        })
    }

    fn merged(name: &str, text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let toml_error = |message: String| ConfigError::Toml {
            path: name.to_owned(),
            message: message.trim_end().to_owned(),
        };
        let mut table: toml::Table =
            toml::from_str(text).map_err(|error| toml_error(error.to_string()))?;
        for item in overrides {
            set(&mut table, item).ok_or_else(|| ConfigError::Override(item.clone()))?;
        }
        let config: Self = table
            .try_into()
            .map_err(|error| toml_error(explained(&error, text)))?;
        config.resolved().map_err(|message| ConfigError::Invalid {
            path: name.to_owned(),
            message,
        })
    }

    fn resolved(mut self) -> Result<Self, String> {
        self.model = self.model.resolved()?;
        self.train.resolve(self.model.classes.len())?;
        self.optimizer = self.optimizer.resolved()?;
        let channels = self.model.channels.len();
        for (field, values) in [("mean", &mut self.data.mean), ("std", &mut self.data.std)] {
            if values.len() == 1 {
                *values = vec![values[0]; channels];
            }
            if values.len() != channels {
                return Err(format!(
                    "data.{field} has {} values for {channels} channels; give one, or one a channel",
                    values.len()
                ));
            }
        }
        let threshold = self.data.balance_threshold;
        if !(threshold > 0.0 && threshold <= 1.0) {
            return Err(format!(
                "data.balance_threshold is {threshold}; it must be above 0 and at most 1"
            ));
        }
        self.data.augment.validate()?;
        self.preprocess().validate()?;
        Ok(self)
    }

    /// How files become the network's input.
    #[must_use]
    pub fn preprocess(&self) -> Preprocess {
        Preprocess {
            channels: self.model.channels.clone(),
            size: self.model.input_size,
            resize: self.data.resize,
            mean: self.data.mean.clone(),
            std: self.data.std.clone(),
        }
    }

    /// What a pixel cache must hold: planes of the input's size, or where training crops, so large
    /// that a crop is not enlarged.
    #[must_use]
    pub fn cache_form(&self) -> CacheForm {
        let crop = self.data.augment.crop;
        CacheForm {
            size: (f64::from(self.model.input_size) / crop).ceil() as u32,
            resize: self.data.resize,
            stains: self.preprocess().stains(),
        }
    }
}

fn one() -> usize {
    1
}

/// The sentence of an error in the table that `text` and the overrides made, and what may have been
/// meant by an unknown word in it.
fn explained(error: &toml::de::Error, text: &str) -> String {
    let by_name = error.to_string();
    let place = by_name
        .trim_end()
        .rsplit_once("\nin `")
        .map_or("", |(_, place)| place.trim_end_matches('`'));
    // If no override brought the error, the text has it too, with the line.
    let by_line = toml::from_str::<Config>(text).err();
    let by_line = by_line.filter(|same| same.message() == error.message());
    let sentence = by_line.map_or_else(|| by_name.clone(), |error| error.to_string());
    match suggestion(error.message(), place) {
        Some(suggestion) => format!("{}\n{suggestion}", sentence.trim_end()),
        None => sentence,
    }
}

#[cfg(test)]
mod tests;

//! The config of a training run: a TOML file with four tables, and `--set` overrides.

mod overrides;

use std::path::Path;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use self::overrides::{Overrides, option};
use super::did_you_mean::suggestion;
use super::{ClassWeights, LossConfig, LossName, OptimizerConfig, TrainPrecision, torch};
use crate::data::{AugmentConfig, CacheForm, Sampler, Split};
use crate::imaging::{Preprocess, Resize};
use crate::model::ModelConfig;

/// All settings of a run except for paths and devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub model: ModelConfig,
    pub train: TrainConfig,
    pub optimizer: OptimizerConfig,
    #[serde(default)]
    pub data: DataConfig,
}

/// The table `[train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Number of epochs; each ends with a validation, a row of metrics and a checkpoint.
    pub epochs: u32,
    /// Steps per epoch; the whole training set if absent.
    pub steps_per_epoch: Option<usize>,
    /// Samples per batch.
    pub batch_size: usize,
    /// Validation batches per epoch; the whole validation set if absent.
    pub validation_steps: Option<usize>,
    /// Number of epochs with the lowest validation loss whose checkpoints are kept.
    #[serde(default)]
    pub keep_top: usize,
    /// Epochs without a lower validation loss before the run stops early; never if absent.
    pub patience: Option<u32>,
    /// Number format of the computation: `tf32`, `fp32` or `bf16`.
    #[serde(default)]
    pub precision: TrainPrecision,
    /// Whether libtorch uses only deterministic algorithms, so that a resumed run is bit-identical.
    #[serde(default)]
    pub deterministic: bool,
    /// Random seed of weights, sample order and dropout.
    #[serde(default)]
    pub seed: u64,
    /// Stages from the first epoch on; later epochs train all parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<TrainStage>,
    #[serde(default)]
    pub loss: LossName,
    /// Fraction of each target that is replaced by 1/2, 0–1.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Weights of the positive samples of each class, for `bce` and `focal`.
    #[serde(default)]
    pub class_weights: ClassWeights,
    /// Focusing parameter γ of `focal`; 2 if absent.
    pub focal_gamma: Option<f64>,
    /// Maximum global L2 norm of the gradient of a step; no limit if absent.
    pub clip_norm: Option<f64>,
    /// Decay of the exponential moving average of the weights, which is then validated and saved;
    /// none if absent.
    pub ema: Option<f64>,
    /// Whether the backward pass recomputes cheap layers instead of keeping them in memory.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Number of batches whose mean gradient makes one step.
    #[serde(default = "one")]
    pub accumulate: usize,
}

impl TrainConfig {
    /// Returns the loss and its settings.
    #[must_use]
    pub fn loss(&self) -> LossConfig {
        LossConfig {
            name: self.loss,
            label_smoothing: self.label_smoothing,
            class_weights: self.class_weights.clone(),
            focal_gamma: self.focal_gamma,
        }
    }

    /// Returns the first epoch of the stage of `epoch` (from 0), and the stage.
    #[must_use]
    pub fn stage(&self, epoch: u32) -> (u32, TrainStage) {
        let mut first = 0;
        for stage in &self.stages {
            if epoch < first + stage.epochs {
                return (first, stage.clone());
            }
            first += stage.epochs;
        }
        let rest = TrainStage {
            epochs: self.epochs - first,
            ..TrainStage::default()
        };
        (first, rest)
    }

    /// Returns `device` with gradients and, if configured, gradient checkpointing.
    #[must_use]
    pub fn with_gradients(&self, device: &Device) -> Device {
        let device = device.clone().autodiff();
        if self.gradient_checkpointing {
            return device.gradient_checkpointing();
        }
        device
    }

    /// Applies precision and determinism to the process and checks that the device supports them.
    ///
    /// # Errors
    ///
    /// The device does not support the precision.
    pub fn configure(&self, device: &Device) -> Result<(), String> {
        torch::configure(device, self.precision, self.deterministic)
    }

    /// Returns the number of samples per step.
    #[must_use]
    pub fn step_size(&self) -> usize {
        self.batch_size * self.accumulate
    }

    /// Validates the values and fills in the defaults of the loss.
    fn resolve(&mut self, classes: usize) -> Result<(), String> {
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
                "train.stages has {staged} epochs, train.epochs only {}\nhint: raise train.epochs or shorten \
                 the stages",
                self.epochs
            ));
        }
        for stage in &self.stages {
            if stage.epochs == 0 {
                return Err("train.stages contains a stage with 0 epochs\nhint: remove it".into());
            }
            if let Some(lr) = stage.lr.filter(|lr| !lr.is_finite() || *lr < 0.0) {
                return Err(format!(
                    "train.stages contains lr = {lr}; it must be at least 0"
                ));
            }
        }
        if let Some(norm) = self.clip_norm.filter(|n| !n.is_finite() || *n <= 0.0) {
            return Err(format!(
                "train.clip_norm is {norm}; it must be above 0\nhint: leave it out for no limit"
            ));
        }
        if let Some(decay) = self.ema.filter(|d| *d <= 0.0 || !(0.0..1.0).contains(d)) {
            return Err(format!(
                "train.ema is {decay}; it must be between 0 and 1\nhint: leave it out for no average"
            ));
        }
        self.focal_gamma = self.loss().resolved(classes)?.focal_gamma;
        Ok(())
    }
}

/// A stage of a run with its own settings; it starts with a new optimizer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainStage {
    pub epochs: u32,
    /// Prefixes of the names of frozen parameters; see [`crate::model::freeze`].
    #[serde(default)]
    pub freeze: Vec<String>,
    /// Learning rate; that of the optimizer if absent.
    pub lr: Option<f64>,
}

/// The table `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// `none`, `third-fold`, `random:FRACTION`, `kfold:I/K`, `stratified:I/K` or `file:CSV`.
    pub split: Split,
    /// `shuffle` or `balanced`.
    pub sampler: Sampler,
    /// Fraction of the samples below which the balanced sampler repeats a class.
    pub balance_threshold: f64,
    /// Filter of the resize to the input size.
    pub resize: Resize,
    /// Subtracted from each channel after scaling to 0–1; one value, or one per channel.
    pub mean: Vec<f32>,
    /// Divides each channel after that; one value, or one per channel.
    pub std: Vec<f32>,
    /// Number of threads that decode images.
    pub workers: usize,
    pub augment: AugmentConfig,
}

impl Default for DataConfig {
    /// The split and normalization of the reference experiments.
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
    #[error("cannot read {path}: {cause}")]
    Io { path: String, cause: std::io::Error },
    /// Invalid syntax, an unknown or missing key, or a value of the wrong type.
    #[error("{origin}: {message}")]
    Toml {
        /// The file, or the override that caused the error.
        origin: String,
        /// The message of the parser, with the line in the file.
        message: String,
    },
    /// An override that is not `table.key=value`.
    #[error("--set {0}: not an override\nhint: write table.key=value, for example train.epochs=3")]
    Override(String),
    /// A value out of range.
    #[error("{origin}: {message}")]
    Invalid {
        /// The file, or the override that caused the error.
        origin: String,
        /// Names the keys and what is wrong with them.
        message: String,
    },
}

impl Config {
    /// Reads a config, applies overrides and fills in every default.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the file or override, and the key.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&name, &text, overrides),
            Err(cause) => Err(ConfigError::Io { path: name, cause }),
        }
    }

    /// As [`read`](Self::read), from text; `name` stands for the file in errors.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let mut table: toml::Table = toml::from_str(text).map_err(|error| ConfigError::Toml {
            origin: name.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        })?;
        let overrides = Overrides::apply(&mut table, overrides)
            .map_err(|item| ConfigError::Override(item.to_owned()))?;
        let config: Self = table
            .try_into()
            .map_err(|error| type_error(&error, &overrides, (name, text)))?;
        config.resolved().map_err(|message| {
            let origin = match overrides.named_in(&message) {
                Some(item) => option(item),
                None if overrides.is_empty() => name.to_owned(),
                None => format!("{name} with {}", overrides.to_options()),
            };
            ConfigError::Invalid { origin, message }
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
                    "data.{field} has {} values for {channels} channels (model.channels)\nhint: give one \
                     value, or one per channel",
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

    /// Returns how files are converted to the input of the network.
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

    /// Returns the contents of a suitable pixel cache: planes of the input size or, if training crops,
    /// large enough that a crop is not enlarged.
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

/// Returns an error about the type or name of a value, in the table that the file `(name, text)` and
/// the overrides made. Suggests a similar key or value.
fn type_error(error: &toml::de::Error, overrides: &Overrides, file: (&str, &str)) -> ConfigError {
    let text = error.to_string();
    let (sentence, place) = text
        .trim_end()
        .rsplit_once("\nin `")
        .map_or((text.trim_end(), ""), |(sentence, place)| {
            (sentence, place.trim_end_matches('`'))
        });
    // The place of an unknown key is its table.
    let unknown = error.message().strip_prefix("unknown field `");
    let key = match unknown.and_then(|rest| rest.split('`').next()) {
        Some(field) if place.is_empty() => field.to_owned(),
        Some(field) => format!("{place}.{field}"),
        None => place.to_owned(),
    };
    let in_file = toml::from_str::<Config>(file.1).err();
    let missing = error.message().starts_with("missing field");
    let (origin, mut message) = match (overrides.at(&key), in_file) {
        // An incomplete table that an override created: a wrong name in the file is the likely cause.
        (Some(_), Some(by_line)) if missing => (file.0.to_owned(), by_line.to_string()),
        (Some(item), _) => (option(item), sentence.to_owned()),
        // Without the overrides the parser also gives the line.
        (None, Some(by_line)) if by_line.message() == error.message() => {
            (file.0.to_owned(), by_line.to_string())
        }
        (None, _) => (file.0.to_owned(), text.clone()),
    };
    message.truncate(message.trim_end().len());
    if let Some(suggestion) = suggestion(error.message(), place) {
        message += &format!("\nhint: {suggestion}");
    }
    ConfigError::Toml { origin, message }
}

#[cfg(test)]
mod tests;

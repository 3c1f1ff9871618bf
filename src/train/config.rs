//! A training run's config: one TOML file of four tables, overridden by `--set`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{ClassWeights, LossConfig, LossName, OptimizerConfig};
use crate::data::Split;
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
    /// Batches a step; their gradients are averaged.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// Validation batches an epoch; the whole validation set if absent.
    pub validation_steps: Option<usize>,
    /// Epochs without a lower validation loss after which the run ends; never if absent.
    pub patience: Option<u32>,
    /// Seed of weights, order and dropout.
    #[serde(default)]
    pub seed: u64,
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
    /// Greatest global L2 norm of a step's gradient; none if absent.
    pub clip_norm: Option<f64>,
    /// Decay of the average of weights that is validated and deployed, 0–1; none if absent.
    pub ema: Option<f64>,
}

fn one() -> usize {
    1
}

impl TrainConfig {
    fn validate(&self) -> Result<(), String> {
        for (field, value) in [
            ("epochs", self.epochs as usize),
            ("batch_size", self.batch_size),
            ("accumulate", self.accumulate),
            ("steps_per_epoch", self.steps_per_epoch.unwrap_or(1)),
            ("validation_steps", self.validation_steps.unwrap_or(1)),
            ("patience", self.patience.unwrap_or(1) as usize),
        ] {
            if value == 0 {
                return Err(format!("train.{field} is 0; it must be at least 1"));
            }
        }
        if let Some(norm) = self
            .clip_norm
            .filter(|norm| !norm.is_finite() || *norm <= 0.0)
        {
            return Err(format!("train.clip_norm is {norm}; it must be more than 0"));
        }
        if let Some(decay) = self.ema.filter(|decay| !(0.0..1.0).contains(decay)) {
            return Err(format!(
                "train.ema is {decay}; it must be at least 0 and below 1"
            ));
        }
        Ok(())
    }

    /// Samples a step.
    #[must_use]
    pub fn step_size(&self) -> usize {
        self.batch_size * self.accumulate
    }

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
}

/// `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataConfig {
    /// `none`, `third-fold` or `random:FRACTION`.
    pub split: Split,
    /// Filter of the resize to the input size.
    pub resize: Resize,
    /// Subtracted from each channel after scaling to 0–1; one for all, or one a channel.
    pub mean: Vec<f32>,
    /// Divides each channel after that; one for all, or one a channel.
    pub std: Vec<f32>,
    /// Threads that decode images.
    pub workers: usize,
}

impl Default for DataConfig {
    /// The reference's split and normalisation.
    fn default() -> Self {
        Self {
            split: Split::ThirdFold,
            resize: Resize::Bilinear,
            mean: vec![0.5],
            std: vec![0.5],
            workers: 2,
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
        /// The file.
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
        /// The file.
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

    /// As [`read`](Self::read), from text; `name` stands in the errors.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let toml_error = |error: toml::de::Error| ConfigError::Toml {
            path: name.to_owned(),
            message: error.to_string().trim_end().to_owned(),
        };
        // Without overrides the text is parsed directly: those errors know the line.
        let config: Self = if overrides.is_empty() {
            toml::from_str(text).map_err(toml_error)?
        } else {
            let mut table: toml::Table = toml::from_str(text).map_err(toml_error)?;
            for item in overrides {
                set(&mut table, item).ok_or_else(|| ConfigError::Override(item.clone()))?;
            }
            table.try_into().map_err(toml_error)?
        };
        config.resolved().map_err(|message| ConfigError::Invalid {
            path: name.to_owned(),
            message,
        })
    }

    fn resolved(mut self) -> Result<Self, String> {
        self.model.validate()?;
        self.train.validate()?;
        let loss = self.train.loss().resolved(self.model.classes.len())?;
        self.train.focal_gamma = loss.focal_gamma;
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
}

/// Sets `table.key=value`; a value that is not TOML is taken as a string.
fn set(table: &mut toml::Table, item: &str) -> Option<()> {
    let (key, text) = item.split_once('=')?;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts
        .pop()
        .filter(|last| !last.is_empty() && !parts.is_empty())?;
    let mut target = table;
    for part in parts {
        target = target
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()?;
    }
    let value = format!("value = {}", text.trim())
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.trim().to_owned()));
    target.insert(last.to_owned(), value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
        model = { arch = 'resnet50', input_size = 64 }\n\
        train = { epochs = 2, batch_size = 4 }\n\
        optimizer = { name = 'adadelta', constants = 'keras-2.0.8' }\n";

    fn parse(overrides: &[&str]) -> Result<Config, String> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        Config::parse("run.toml", TEXT, &overrides).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_written_out() {
        let config = parse(&[]).unwrap();
        assert_eq!(config.optimizer.lr, Some(1.0));
        assert_eq!(config.optimizer.rho, Some(0.95));
        assert_eq!(config.optimizer.epsilon, Some(1e-8));
        assert_eq!(config.data.mean, [0.5; 4]);
        assert_eq!(config.model.classes.len(), 28);
        // What a run writes is what a resumed run reads.
        let text = toml::to_string_pretty(&config).unwrap();
        assert_eq!(Config::parse("config.toml", &text, &[]).unwrap(), config);
    }

    #[test]
    fn a_loss_is_written_out() {
        let config = parse(&["train.loss=focal", "train.class_weights=balanced"]).unwrap();
        assert_eq!(config.train.loss().focal_gamma, Some(2.0));
        let text = toml::to_string_pretty(&config).unwrap();
        assert!(text.contains("class_weights = \"balanced\""), "{text}");
        assert_eq!(Config::parse("config.toml", &text, &[]).unwrap(), config);
        assert_eq!(parse(&[]).unwrap().train.loss(), LossConfig::default());
    }

    #[test]
    fn overrides_take_numbers_lists_and_bare_words() {
        let config = parse(&[
            "train.epochs=7",
            "model.hidden=[32, 16]",
            "data.split=random:0.2",
            "optimizer.constants=pytorch",
        ])
        .unwrap();
        assert_eq!(config.train.epochs, 7);
        assert_eq!(config.model.hidden, [32, 16]);
        assert_eq!(config.data.split.to_string(), "random:0.2");
        assert_eq!(config.optimizer.rho, Some(0.9));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (item, wanted) in [
            ("train.epoch=3", "epoch"),
            ("train.epochs=0", "train.epochs is 0"),
            ("train.accumulate=0", "train.accumulate is 0"),
            ("train.clip_norm=0", "train.clip_norm is 0"),
            ("train.ema=1.0", "train.ema is 1"),
            ("train.epochs=many", "many"),
            ("train.loss=hinge", "hinge"),
            (
                "train.label_smoothing=-0.1",
                "train.label_smoothing is -0.1",
            ),
            (
                "train.class_weights=[1, 2]",
                "train.class_weights has 2 numbers for 28",
            ),
            ("train.class_weights=equal", "one number a class"),
            (
                "train.focal_gamma=2",
                "train.focal_gamma belongs to the loss focal",
            ),
            ("optimizer.name=lion", "lion"),
            (
                "optimizer.beta1=0.9",
                "optimizer.beta1 belongs to adam and adamw",
            ),
            (
                "optimizer.momentum=0.9",
                "optimizer.momentum belongs to sgd",
            ),
            ("optimizer.weight_decay=-1", "optimizer.weight_decay is -1"),
            ("optimizer.schedule=linear", "linear"),
            (
                "optimizer.min_lr=0.1",
                "optimizer.min_lr belongs to schedule cosine",
            ),
            (
                "optimizer.step_epochs=3",
                "optimizer.step_epochs belongs to schedule step",
            ),
            ("optimizer.rho=1.0", "optimizer.rho"),
            ("optimizer.lr=-1", "optimizer.lr"),
            (
                "model.input_size=16",
                "model.input_size is 16; resnet50 takes 32",
            ),
            ("model.channels=[]", "model.channels has 0"),
            ("model.dropout=1.0", "model.dropout"),
            ("data.mean=[0.1, 0.2]", "data.mean has 2 values for 4"),
            ("data.split=fifth-fold", "fifth-fold"),
            ("nothing", "--set nothing"),
            ("alone=1", "--set alone=1"),
        ] {
            let error = parse(&[item]).unwrap_err();
            assert!(error.contains(wanted), "{item}: {error}");
        }
    }

    #[test]
    fn keys_that_do_not_go_together_are_named() {
        for (items, wanted) in [
            (
                vec!["optimizer.schedule=cosine", "optimizer.min_lr=2"],
                "at most optimizer.lr, 1",
            ),
            (
                vec!["optimizer.schedule=step", "optimizer.step_epochs=0"],
                "step_epochs is 0",
            ),
        ] {
            let error = parse(&items).unwrap_err();
            assert!(error.contains(wanted), "{items:?}: {error}");
        }
        let text = TEXT.replace(
            "name = 'adadelta', constants = 'keras-2.0.8'",
            "name = 'NAME'",
        );
        let with = |name: &str, items: &[&str]| {
            let overrides: Vec<String> = items.iter().map(ToString::to_string).collect();
            let parsed = Config::parse("run.toml", &text.replace("NAME", name), &overrides);
            parsed.map_err(|error| error.to_string())
        };
        for (name, item, wanted) in [
            (
                "sgd",
                "optimizer.nesterov=true",
                "needs optimizer.momentum above 0",
            ),
            (
                "sgd",
                "optimizer.epsilon=1",
                "belongs to adadelta, adam and adamw",
            ),
            ("adamw", "optimizer.constants=keras-2.0.8", "has no adamw"),
        ] {
            let error = with(name, &[item]).unwrap_err();
            assert!(error.contains(wanted), "{item}: {error}");
        }
        let config = with("sgd", &["optimizer.schedule=step"]).unwrap().optimizer;
        assert_eq!(
            (config.step_epochs, config.step_factor),
            (Some(30), Some(0.1))
        );
        assert_eq!((config.momentum, config.nesterov), (Some(0.0), Some(false)));
    }

    #[test]
    fn every_config_of_the_repository_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Config::read(&entry.unwrap().path(), &[]).unwrap();
            count += 1;
        }
        assert!(count >= 4, "{count} configs");
    }
}

//! A training run's config: one TOML file of four tables, overridden by `--set`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::OptimizerConfig;
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
    /// Samples a step.
    pub batch_size: usize,
    /// Seed of weights, order and dropout.
    #[serde(default)]
    pub seed: u64,
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
        self.model = self.model.resolved()?;
        for (field, value) in [
            ("epochs", self.train.epochs as usize),
            ("batch_size", self.train.batch_size),
            ("steps_per_epoch", self.train.steps_per_epoch.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(format!("train.{field} is 0; it must be at least 1"));
            }
        }
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
            ("train.epochs=many", "many"),
            ("optimizer.name=sgd", "sgd"),
            ("optimizer.beta1=0.9", "beta1 and beta2 belong to adam"),
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
    fn every_config_of_the_repository_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Config::read(&entry.unwrap().path(), &[]).unwrap();
            count += 1;
        }
        assert!(count >= 9, "{count} configs");
    }
}

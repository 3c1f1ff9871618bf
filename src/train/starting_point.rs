//! The weights that a new run starts from: a checkpoint, a run, or an ONNX file.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Checkpoint, CheckpointError, resolve};
use crate::model::{
    Arch, Classifier, ConversionError, ConversionOptions, ConversionSource, ConvertedModel,
    Exported, ModelConfig, WeightTransfer, read_onnx, transfer_weights,
};
use crate::model_metadata::Provenance;

/// What to do with the head of the starting point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum HeadChoice {
    /// Keep the head if its layers and classes match the config, else replace it.
    Auto,
    /// Keep the head; fail if it does not match the config.
    Keep,
    /// Keep the layers before the first that differs from the config; the output layer is new.
    Prefix,
    /// Replace the head with a new one.
    Replace,
}

/// The weights that a new run starts from, checked against the run's config.
#[derive(Debug)]
pub struct StartingPoint {
    /// The ONNX file or checkpoint directory.
    pub path: PathBuf,
    /// Which weights the run takes over.
    pub transfer: WeightTransfer,
    pub provenance: Provenance,
    /// Number of BatchNorm layers with placeholder statistics, because a converted file had them
    /// folded.
    pub unfolded: usize,
    /// The stem filter of each channel in words, if the file is a pretrained network.
    pub stem: Option<String>,
    weights: StartingWeights,
}

#[derive(Debug)]
enum StartingWeights {
    /// In the checkpoint directory.
    Checkpoint,
    /// Converted from an ONNX file.
    Converted(Box<Classifier>),
}

/// Why a run cannot start from a checkpoint or file.
#[derive(Debug, thiserror::Error)]
pub enum StartingPointError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Conversion(#[from] ConversionError),
    /// The network is not that of the config.
    #[error(
        "{} holds {}, but the config has model.arch = \"{}\"",
        path.display(), found.name(), expected.name()
    )]
    Arch {
        path: PathBuf,
        found: Arch,
        expected: Arch,
    },
    /// The input channels are not those of the config.
    #[error(
        "{} has the channels {found:?}, but the config has model.channels = {expected:?}",
        path.display()
    )]
    Channels {
        path: PathBuf,
        found: Vec<String>,
        expected: Vec<String>,
    },
    /// A pretrained network has no head that could be kept.
    #[error(
        "{} is a pretrained network with a head for other classes\nhint: leave out --head",
        .0.display()
    )]
    NoHead(PathBuf),
    /// The head does not match the config.
    #[error(
        "{}: the head has other layers or classes than the config\nhint: make model.hidden, \
         projection, pooling, input_norm and classes agree, or use --head prefix or replace",
        .0.display()
    )]
    Head(PathBuf),
}

impl StartingPoint {
    /// Opens a checkpoint directory, a run directory (its best checkpoint) or an ONNX file.
    ///
    /// A pretrained ONNX file is converted in memory for the channels of `model`, with the default
    /// stem; only its backbone is used.
    ///
    /// # Errors
    ///
    /// The checkpoint or file is missing or damaged, or does not match `model` or `head`.
    pub fn open(
        path: &Path,
        model: &ModelConfig,
        head: HeadChoice,
    ) -> Result<Self, StartingPointError> {
        let (mut start, source) = if path.is_file() {
            Self::from_onnx(path, model)?
        } else {
            Self::from_checkpoint(resolve(path)?)?
        };
        let path = start.path.clone();
        if source.arch != model.arch {
            return Err(StartingPointError::Arch {
                path,
                found: source.arch,
                expected: model.arch,
            });
        }
        if source.channels != model.channels {
            return Err(StartingPointError::Channels {
                path,
                found: source.channels,
                expected: model.channels.clone(),
            });
        }
        start.transfer = match head {
            HeadChoice::Keep | HeadChoice::Prefix if start.stem.is_some() => {
                return Err(StartingPointError::NoHead(path));
            }
            _ if start.stem.is_some() => WeightTransfer::Backbone,
            HeadChoice::Prefix => WeightTransfer::Prefix,
            HeadChoice::Keep | HeadChoice::Auto if source.same_head(model) => WeightTransfer::All,
            HeadChoice::Auto | HeadChoice::Replace => WeightTransfer::Backbone,
            HeadChoice::Keep => return Err(StartingPointError::Head(path)),
        };
        Ok(start)
    }

    /// Opens a checkpoint directory; returns it with the config of its network.
    fn from_checkpoint(path: PathBuf) -> Result<(Self, ModelConfig), StartingPointError> {
        let checkpoint = Checkpoint::open(&path)?;
        let start = Self {
            path,
            transfer: WeightTransfer::All,
            provenance: checkpoint.spec.provenance,
            unfolded: checkpoint.unfolded,
            stem: None,
            weights: StartingWeights::Checkpoint,
        };
        Ok((start, checkpoint.model))
    }

    /// Converts an ONNX file; returns it with the config of its network.
    fn from_onnx(
        path: &Path,
        model: &ModelConfig,
    ) -> Result<(Self, ModelConfig), StartingPointError> {
        let source = read_onnx(path)?;
        let converted = if Exported::is(&source) {
            ConvertedModel::from_export(path, source)?
        } else {
            let options = ConversionOptions {
                channels: Some(model.channels.clone()),
                ..ConversionOptions::default()
            };
            ConvertedModel::from_pretrained(path, source, &options)?
        };
        let start = Self {
            path: path.to_owned(),
            transfer: WeightTransfer::All,
            unfolded: converted.unfolded(),
            provenance: converted.spec.provenance,
            stem: match converted.source {
                ConversionSource::Pretrained { stem, .. } => Some(stem),
                ConversionSource::Exported => None,
            },
            weights: StartingWeights::Converted(Box::new(converted.classifier)),
        };
        Ok((start, converted.config))
    }

    /// Loads the weights into a new network of the run's config.
    ///
    /// # Errors
    ///
    /// The weights do not fit the network.
    pub fn load(&self, classifier: Classifier) -> Result<Classifier, CheckpointError> {
        match &self.weights {
            StartingWeights::Checkpoint => Checkpoint::load(&self.path, classifier, self.transfer),
            StartingWeights::Converted(source) => {
                let loaded = transfer_weights(source, classifier, self.transfer);
                loaded.map_err(|cause| CheckpointError::Weights {
                    path: self.path.display().to_string(),
                    cause,
                })
            }
        }
    }

    /// Returns what happens to the head, in words.
    #[must_use]
    pub fn head(&self) -> &'static str {
        match self.transfer {
            WeightTransfer::All => "kept",
            WeightTransfer::Prefix => "kept up to the first layer that differs from the config",
            WeightTransfer::Backbone => "replaced by a new one",
        }
    }
}

impl fmt::Display for StartingPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if let Some(stem) = &self.stem {
            writeln!(
                f,
                "{path} is a pretrained network; the channels of its stem: {stem} (`rgby convert` has \
                 other options)"
            )?;
        }
        write!(f, "starting from {path}, its head {}", self.head())
    }
}

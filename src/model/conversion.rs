//! Conversion of an ONNX file to a network for training, in memory.

use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::{
    Arch, Classifier, Exported, ModelConfig, Pretrained, PretrainedReport, StemFilters,
    StemFiltersError, WeightsError,
};
use crate::atomic_file;
use crate::graph::{self, ModelProto};
use crate::imaging::Preprocess;
use crate::model_metadata::ModelSpec;

/// Choices for a pretrained file. A file that rgby exported accepts none of them but `arch`.
#[derive(Debug, Clone, Default)]
pub struct ConversionOptions {
    /// The expected network; detected from the graph if absent.
    pub arch: Option<Arch>,
    /// Initial stem filters of each channel.
    pub stem: StemFilters,
    /// Stains, or sums of them, in input order; red, green, blue and yellow if absent.
    pub channels: Option<Vec<String>>,
    /// Class names; the 28 classes of the Human Protein Atlas if absent.
    pub classes: Option<Vec<String>>,
    /// Random seed of the new head.
    pub seed: u64,
}

/// A network with the weights of an ONNX file.
#[derive(Debug)]
pub struct ConvertedModel {
    pub config: ModelConfig,
    pub spec: ModelSpec,
    /// On the CPU, without gradients.
    pub classifier: Classifier,
    /// SHA-256 of the file, lower-case hexadecimal.
    pub source_sha256: String,
    pub source: ConversionSource,
}

/// The kind of file that a network was converted from.
#[derive(Debug)]
pub enum ConversionSource {
    /// A pretrained network with another classifier; the head is new.
    Pretrained {
        report: PretrainedReport,
        /// The stem filter of each channel in words.
        stem: String,
    },
    /// A file that rgby exported; backbone and head are the file's.
    Exported,
}

/// Why a file could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConversionError {
    /// The file cannot be read or does not fit.
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: WeightsError },
    #[error("cannot read {}: {cause}", path.display())]
    Hash { path: PathBuf, cause: io::Error },
    #[error(transparent)]
    Stem(#[from] StemFiltersError),
    /// A channel or class list that no model can have.
    #[error("{0}")]
    Config(String),
    /// An option that does not apply to a file that rgby exported.
    #[error(
        "{} was exported by rgby and keeps its channels and classes\nhint: leave out {flag}; \
         retraining can replace the head",
        path.display()
    )]
    Fixed { path: PathBuf, flag: &'static str },
    /// An exported file of another network than `arch`.
    #[error("{} holds {}\nhint: leave out --arch", path.display(), found.name())]
    OtherArch { path: PathBuf, found: Arch },
}

/// Reads an ONNX file for conversion.
///
/// # Errors
///
/// The file cannot be read or is not a valid ONNX model.
pub fn read_onnx(path: &Path) -> Result<ModelProto, ConversionError> {
    graph::read(path).map_err(|error| file_error(path)(error.into()))
}

impl ConvertedModel {
    /// Reads and converts a pretrained file or a file that rgby exported.
    ///
    /// # Errors
    ///
    /// [`ConversionError`].
    pub fn read(path: &Path, options: &ConversionOptions) -> Result<Self, ConversionError> {
        let source = read_onnx(path)?;
        if !Exported::is(&source) {
            return Self::from_pretrained(path, source, options);
        }
        let given = [
            ("--channels", options.channels.is_some()),
            ("--classes and --labels-from", options.classes.is_some()),
            ("--stem", options.stem != StemFilters::default()),
        ];
        let path = path.to_owned();
        if let Some((flag, _)) = given.into_iter().find(|(_, given)| *given) {
            return Err(ConversionError::Fixed { path, flag });
        }
        let model = Self::from_export(&path, source)?;
        let found = model.config.arch;
        if options.arch.is_some_and(|arch| arch != found) {
            return Err(ConversionError::OtherArch { path, found });
        }
        Ok(model)
    }

    /// Converts a pretrained network; `path` is named in errors and hashed.
    ///
    /// # Errors
    ///
    /// The graph is not a known network or not the requested one, or an option is invalid.
    pub fn from_pretrained(
        path: &Path,
        source: ModelProto,
        options: &ConversionOptions,
    ) -> Result<Self, ConversionError> {
        let failed = file_error(path);
        let pretrained = Pretrained::new(source).map_err(|error| failed(error.into()))?;
        let arch = match options.arch {
            Some(arch) => arch,
            None => pretrained.arch().map_err(&failed)?,
        };
        let config = options.model_config(arch)?;
        let filters = options.stem.filters(&config.channels)?;
        let classifier = Classifier::new(&config, options.seed, &Device::flex());
        let (classifier, report) = pretrained
            .load(arch, &filters, classifier)
            .map_err(&failed)?;
        let source_sha256 = sha256(path)?;
        let preprocess = Preprocess::new(&config.channels, config.input_size);
        let mut spec = ModelSpec::new(arch.name(), config.classes.clone(), preprocess);
        let name = path.file_name();
        spec.provenance.source = name.map(|name| name.to_string_lossy().into_owned());
        spec.provenance.source_sha256 = Some(source_sha256.clone());
        let stem = options.stem.describe(&config.channels)?;
        Ok(Self {
            config,
            spec,
            classifier,
            source_sha256,
            source: ConversionSource::Pretrained { report, stem },
        })
    }

    /// Restores the network of a file that rgby exported.
    ///
    /// # Errors
    ///
    /// The file is incomplete or holds rounded weights.
    pub fn from_export(path: &Path, source: ModelProto) -> Result<Self, ConversionError> {
        let exported = Exported::new(source).map_err(file_error(path))?;
        Ok(Self {
            classifier: exported.load().map_err(file_error(path))?,
            config: exported.config,
            spec: exported.spec,
            source_sha256: sha256(path)?,
            source: ConversionSource::Exported,
        })
    }

    /// Returns the number of BatchNorm layers with placeholder statistics, because the file had
    /// them folded.
    #[must_use]
    pub fn unfolded(&self) -> usize {
        match &self.source {
            ConversionSource::Pretrained { report, .. } => report.unfolded,
            ConversionSource::Exported => 0,
        }
    }
}

impl ConversionOptions {
    fn model_config(&self, arch: Arch) -> Result<ModelConfig, ConversionError> {
        let mut config = ModelConfig::new(arch, arch.native_input_size());
        if let Some(channels) = &self.channels {
            config.channels.clone_from(channels);
        }
        if let Some(classes) = &self.classes {
            config.classes.clone_from(classes);
        }
        let preprocess = Preprocess::new(&config.channels, config.input_size);
        config
            .validate()
            .and_then(|()| preprocess.validate())
            .map_err(ConversionError::Config)?;
        Ok(config)
    }
}

fn file_error(path: &Path) -> impl Fn(WeightsError) -> ConversionError {
    let path = path.to_owned();
    move |cause| ConversionError::File {
        path: path.clone(),
        cause,
    }
}

fn sha256(path: &Path) -> Result<String, ConversionError> {
    atomic_file::sha256_file(path).map_err(|cause| ConversionError::Hash {
        path: path.to_owned(),
        cause,
    })
}

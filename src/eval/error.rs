//! Errors of an evaluation.

use std::io;
use std::path::PathBuf;

use crate::data::{ClassNamesError, ImagesError, LabelError, ScoresError};
use crate::imaging::SampleError;
use crate::model_metadata::ThresholdFileError;
use crate::report::ReportError;
use crate::score::output::OutputError;
use crate::score::{EngineError, Failure, ScoreError};
#[cfg(feature = "train")]
use crate::train::{CheckpointError, ConfigError, TrainError};

/// An evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// Invalid labels file.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// Invalid labels file of `--ratios`.
    #[error("--ratios: {0}")]
    Ratios(LabelError),
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// Invalid scores file.
    #[error(transparent)]
    Scores(#[from] ScoresError),
    #[error(transparent)]
    ClassNames(#[from] ClassNamesError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// An image of an occlusion map cannot be read.
    #[error(transparent)]
    Sample(#[from] SampleError),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Thresholds(#[from] ThresholdFileError),
    #[error(transparent)]
    Write(#[from] io::Error),
    #[cfg(feature = "train")]
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[cfg(feature = "train")]
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The `run.json` of a run cannot be read.
    #[cfg(feature = "train")]
    #[error(transparent)]
    Run(#[from] TrainError),
    /// A required file is not in the config.
    #[error("{what} missing\nhint: pass {flag}")]
    Missing {
        what: &'static str,
        flag: &'static str,
    },
    /// A run cannot be evaluated on its validation split.
    #[error("--run {}: {reason}", .run.display())]
    RunData { run: PathBuf, reason: String },
    /// No sample of the labels file has a class.
    #[error(
        "labels file {}: none of its {samples} samples has a class\nhint: fill in the column \
         `Target`",
        .path.display()
    )]
    NoPositives { path: PathBuf, samples: usize },
    /// No labelled sample has probabilities.
    #[error(
        "none of the {samples} labelled samples could be evaluated; the first is `{}`: {} {}",
        .first.id, .first.file, .first.error
    )]
    NoneEvaluated { samples: usize, first: Failure },
    /// Probabilities outside 0–1.
    #[error("{0}")]
    Probabilities(String),
    /// Engine options for a checkpoint.
    #[error(
        "{path}: Burn runs this run or checkpoint on the CPU; --device, --engine, \
         --ort-lib, --engine-config, --sessions and --intra-threads are for exported models\n\
         hint: export it with `rgby export --from {path} --out model.onnx`",
        path = .0.display()
    )]
    EngineOptions(PathBuf),
    /// A scores file has no thresholds.
    #[error(
        "--threshold tuned: a scores file contains no thresholds\nhint: give a number from 0 to 1"
    )]
    ThresholdOfScores,
    #[error("--tune-thresholds needs more than one sample\nhint: label more samples")]
    TooFewToTune,
    #[error("--ratios: class {class} is out of range; classes are 0 to {last}")]
    RatioClass { class: u16, last: usize },
    /// Two subjects without a common list of classes.
    #[error(
        "{} and {} have different classes ({} and {}), or another order of them\nhint: compare \
         models of the same classes, or name the classes of scores files with --classes",
        .subjects[0].display(), .subjects[1].display(), .counts[0], .counts[1]
    )]
    DifferentClasses {
        subjects: [PathBuf; 2],
        counts: [usize; 2],
    },
    /// Two subjects without a common sample.
    #[error(
        "{} and {} have no labelled sample in common\nhint: give both the same ids",
        .0[0].display(), .0[1].display()
    )]
    NothingInCommon([PathBuf; 2]),
    #[error(
        "--compare needs at least two samples and two bootstrap draws\nhint: use --bootstrap 1000"
    )]
    TooFewToCompare,
    #[error("the engine panicked")]
    EnginePanicked,
    /// The output folder cannot be created.
    #[error("cannot create the folder {}: {cause}", .path.display())]
    CreateFolder { path: PathBuf, cause: io::Error },
    /// A picture of a sample cannot be encoded.
    #[error("picture of {id}: {cause}")]
    Picture {
        id: String,
        cause: image::ImageError,
    },
}

//! Options of an evaluation.

use std::path::{Path, PathBuf};

use crate::data::Images;
use crate::metrics::Bootstrap;
use crate::score::{EngineOptions, Threshold};

/// What to evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvalSubject {
    /// An exported ONNX file, a run directory or a checkpoint directory. Needs images and labels.
    Model(PathBuf),
    /// The best checkpoint of a run directory on the run's validation split. Images and labels are
    /// those of the run, unless the config names others.
    Run(PathBuf),
    /// A file of probabilities: CSV, Parquet or `NumPy`. Needs labels.
    Scores(PathBuf),
}

impl EvalSubject {
    /// Returns a model for a directory or an `.onnx` file, a scores file for any other path.
    #[must_use]
    pub fn from_path(path: &Path) -> Self {
        if path.is_dir() || path.extension().is_some_and(|e| e == "onnx") {
            Self::Model(path.to_owned())
        } else {
            Self::Scores(path.to_owned())
        }
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Model(path) | Self::Run(path) | Self::Scores(path) => path,
        }
    }
}

/// How to tune thresholds on the labels of the evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThresholdTuning {
    /// One threshold per class, for its best F1.
    F1,
    /// One threshold for all classes, for the best macro-F1.
    Global,
    /// One threshold per class, so that the class is predicted as often as it occurs in this labels
    /// file. The labels of the evaluation are not used.
    Ratio(PathBuf),
}

impl ThresholdTuning {
    /// Returns the name of the method, as in `--tune-thresholds`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::F1 => "f1",
            Self::Global => "global",
            Self::Ratio(_) => "ratio",
        }
    }
}

/// Options of an evaluation.
#[derive(Debug, Clone)]
pub struct EvalConfig {
    pub subject: EvalSubject,
    /// Labels file, `Id,Target`.
    pub labels: Option<PathBuf>,
    /// Images of the samples. For a scores file they are used for the report only.
    pub images: Option<Images>,
    /// CSV whose first column lists the ids of the rows of a `NumPy` array.
    pub ids: Option<PathBuf>,
    /// CSV with the class names of a scores file in a column `Name`.
    pub classes: Option<PathBuf>,
    /// `None` uses the thresholds of the model, or 0.5 for a scores file.
    pub threshold: Option<Threshold>,
    pub tuning: Option<ThresholdTuning>,
    /// Always predict the most probable class, even below its threshold.
    pub keep_argmax: bool,
    /// Folds of cross-fitting, at least 2.
    pub folds: usize,
    /// Draws of the confidence intervals, and the seed of draws and folds.
    pub bootstrap: Bootstrap,
    /// Compute occlusion maps for the report. They take 64 more images for each of up to eight
    /// samples, and at most 30 seconds.
    pub occlusion_maps: bool,
    pub engine: EngineOptions,
}

impl EvalConfig {
    /// Returns the default options: five folds, 1,000 bootstrap draws, no tuning, no maps.
    #[must_use]
    pub fn new(subject: EvalSubject) -> Self {
        Self {
            subject,
            labels: None,
            images: None,
            ids: None,
            classes: None,
            threshold: None,
            tuning: None,
            keep_argmax: false,
            folds: 5,
            bootstrap: Bootstrap::default(),
            occlusion_maps: false,
            engine: EngineOptions::default(),
        }
    }
}

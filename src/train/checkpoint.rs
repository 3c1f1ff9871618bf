//! Checkpoints: a folder of weights, optimizer state and where the run stood.
//!
//! A checkpoint is written aside and renamed into place, with a hash of each file, so that a
//! crash leaves the previous one and a damaged one is refused.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use burn::optim::ModuleOptimizer;
use burn::tensor::Bytes;
use serde::{Deserialize, Serialize};

use super::Config;
use super::state::optimizer_bytes;
use crate::atomic_file;
use crate::model::{
    Classifier, ModelConfig, WeightTransfer, WeightsError, load_weights, save_weights,
};
use crate::model_metadata::ModelSpec;

const FORMAT: u32 = 1;
const MANIFEST: &str = "checkpoint.json";
/// SHA-256 of the manifest, which holds those of the other files.
const MANIFEST_HASH: &str = "checkpoint.sha256";
const WEIGHTS: &str = "weights.bpk";
const EMA: &str = "ema.bpk";
const OPTIMIZER: &str = "optimizer.bpk";

/// What a checkpoint says about itself: `checkpoint.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Version of this layout.
    pub format: u32,
    /// The network.
    pub model: ModelConfig,
    /// What a deployed model must know.
    pub spec: ModelSpec,
    /// The run's config; none where the weights were converted.
    pub config: Option<Config>,
    /// Where the run stood; none where the weights were converted.
    pub progress: Option<TrainProgress>,
    /// BatchNorm layers whose statistics were made up, because a converted file had them folded.
    #[serde(default)]
    pub unfolded: usize,
    /// SHA-256 of each file beside this one.
    pub files: BTreeMap<String, String>,
}

/// Where a run stands. Order and dropout follow from the seed and these numbers alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainProgress {
    /// Epochs finished.
    pub epoch: u32,
    /// Steps finished in the epoch under way.
    pub step_in_epoch: usize,
    /// Steps finished since the weights were made.
    pub steps: u64,
    /// Sum of the losses of the epoch under way.
    pub loss_sum: f64,
    /// Seconds spent on the epoch under way.
    pub seconds: f64,
    /// Of them, those spent waiting for data.
    #[serde(default)]
    pub waited: f64,
    /// Lowest validation loss so far.
    pub best_loss: Option<f64>,
    /// Epochs finished since then.
    #[serde(default)]
    pub since_best: u32,
    /// Hash of the data set's ids and labels, and of its pixel cache if it has one.
    pub data: String,
}

/// Why a checkpoint cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system's error.
    #[error("{path}: {source}")]
    Io {
        /// File or folder.
        path: String,
        /// What happened.
        source: io::Error,
    },
    /// There is nothing.
    #[error(
        "there is no {0}; `rgby convert --onnx FILE --out {0}` makes a checkpoint of that name"
    )]
    Absent(String),
    /// There is no checkpoint.
    #[error("{0} is not a checkpoint: it has no {MANIFEST}, and no checkpoints/best or last in it")]
    Missing(String),
    /// A file is not as it was written.
    #[error("{path} is damaged ({reason}); use another checkpoint of the run")]
    Damaged {
        /// The file.
        path: String,
        /// How that shows.
        reason: String,
    },
    /// Weights that do not fit.
    #[error("{path}: {source}")]
    Weights {
        /// The checkpoint.
        path: String,
        /// What does not fit.
        source: WeightsError,
    },
}

/// What a checkpoint keeps beside its description.
#[derive(Clone, Copy)]
pub struct CheckpointContents<'a> {
    /// The weights under training.
    pub classifier: &'a Classifier,
    /// Their average, if one is kept; it is what is deployed then.
    pub ema: Option<&'a Classifier>,
    /// The optimizer's state, for going on.
    pub optimizer: Option<&'a ModuleOptimizer>,
}

impl<'a> CheckpointContents<'a> {
    /// Weights alone.
    #[must_use]
    pub fn weights(classifier: &'a Classifier) -> Self {
        Self {
            classifier,
            ema: None,
            optimizer: None,
        }
    }
}

impl Checkpoint {
    /// A checkpoint's description, before it is saved.
    #[must_use]
    pub fn new(model: ModelConfig, spec: ModelSpec) -> Self {
        let files = BTreeMap::new();
        Self {
            format: FORMAT,
            model,
            spec,
            config: None,
            progress: None,
            unfolded: 0,
            files,
        }
    }

    /// Writes a checkpoint folder, replacing an older one of that name in one step.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; what was there before is still there.
    pub fn save(mut self, dir: &Path, saved: CheckpointContents) -> Result<(), CheckpointError> {
        let parent = dir
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(io_error(parent))?;
        let staged = tempfile::Builder::new()
            .prefix(".checkpoint-")
            .tempdir_in(parent)
            .map_err(io_error(parent))?;
        for (name, network) in [(WEIGHTS, Some(saved.classifier)), (EMA, saved.ema)] {
            let Some(network) = network else { continue };
            let saved = save_weights(network, &staged.path().join(name));
            saved.map_err(|source| CheckpointError::Weights {
                path: dir.display().to_string(),
                source,
            })?;
        }
        if let Some(optimizer) = saved.optimizer {
            let path = staged.path().join(OPTIMIZER);
            let bytes = optimizer_bytes(optimizer)
                .map_err(|error| io_error(&path)(io::Error::other(error)))?;
            fs::write(&path, &*bytes).map_err(io_error(&path))?;
        }
        for name in [WEIGHTS, EMA, OPTIMIZER] {
            let path = staged.path().join(name);
            if path.exists() {
                File::open(&path)
                    .and_then(|file| file.sync_all())
                    .map_err(io_error(&path))?;
                let hash = atomic_file::sha256_file(&path).map_err(io_error(&path))?;
                self.files.insert(name.to_owned(), hash);
            }
        }
        let manifest = staged.path().join(MANIFEST);
        let json = serde_json::to_vec_pretty(&self)
            .map_err(|error| io_error(&manifest)(io::Error::other(error)))?;
        atomic_file::write_atomic(&manifest, &json).map_err(io_error(&manifest))?;
        let hash = atomic_file::sha256_file(&manifest).map_err(io_error(&manifest))?;
        let path = staged.path().join(MANIFEST_HASH);
        atomic_file::write_atomic(&path, hash.as_bytes()).map_err(io_error(&path))?;
        atomic_file::replace_dir(&staged.keep(), dir).map_err(io_error(dir))
    }

    /// Reads a checkpoint's description and checks its files against their hashes.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] names the file that is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        atomic_file::recover_dir(dir).map_err(io_error(dir))?;
        let path = dir.join(MANIFEST);
        if !path.is_file() {
            return Err(CheckpointError::Missing(dir.display().to_string()));
        }
        let hash = dir.join(MANIFEST_HASH);
        let expected = fs::read_to_string(&hash).map_err(|error| damaged(&hash, error))?;
        if atomic_file::sha256_file(&path).map_err(io_error(dir))? != expected {
            let reason = format!("its SHA-256 is not the one in {MANIFEST_HASH}");
            return Err(damaged(&path, reason));
        }
        let checkpoint: Self = serde_json::from_slice(&fs::read(&path).map_err(io_error(dir))?)
            .map_err(|error| damaged(&path, error))?;
        if checkpoint.format != FORMAT {
            let reason = format!("format {}, this rgby reads {FORMAT}", checkpoint.format);
            return Err(damaged(&path, reason));
        }
        for (name, expected) in &checkpoint.files {
            let path = dir.join(name);
            let found = atomic_file::sha256_file(&path).map_err(|error| damaged(&path, error))?;
            if found != *expected {
                let reason = format!("its SHA-256 is not the one in {MANIFEST}");
                return Err(damaged(&path, reason));
            }
        }
        Ok(checkpoint)
    }

    /// Puts as many of the weights that are deployed into `classifier` as `keep` says: of their
    /// average, if one was kept.
    ///
    /// # Errors
    ///
    /// The weights belong to another network.
    pub fn load(
        dir: &Path,
        classifier: Classifier,
        keep: WeightTransfer,
    ) -> Result<Classifier, CheckpointError> {
        let file = if dir.join(EMA).is_file() {
            EMA
        } else {
            WEIGHTS
        };
        load_file(dir, file, classifier, keep)
    }

    /// Puts back the weights under training and, into a network made by `fresh`, their average.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_training(
        dir: &Path,
        fresh: impl Fn() -> Classifier,
    ) -> Result<(Classifier, Option<Classifier>), CheckpointError> {
        let averaged = dir.join(EMA).is_file();
        let ema = averaged.then(|| load_file(dir, EMA, fresh(), WeightTransfer::All));
        Ok((
            load_file(dir, WEIGHTS, fresh(), WeightTransfer::All)?,
            ema.transpose()?,
        ))
    }

    /// Puts the optimizer's state back.
    ///
    /// # Errors
    ///
    /// The checkpoint has none, or it is damaged.
    pub fn load_optimizer(
        dir: &Path,
        optimizer: ModuleOptimizer,
    ) -> Result<ModuleOptimizer, CheckpointError> {
        let path = dir.join(OPTIMIZER);
        let bytes = fs::read(&path).map_err(io_error(&path))?;
        optimizer
            .from_bytes(Bytes::from_bytes_vec(bytes))
            .map_err(|error| damaged(&path, error))
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
    let path = path.display().to_string();
    move |source| CheckpointError::Io { path, source }
}

fn damaged(path: &Path, reason: impl Display) -> CheckpointError {
    CheckpointError::Damaged {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

fn load_file(
    dir: &Path,
    file: &str,
    classifier: Classifier,
    keep: WeightTransfer,
) -> Result<Classifier, CheckpointError> {
    load_weights(classifier, &dir.join(file), keep).map_err(|source| CheckpointError::Weights {
        path: dir.display().to_string(),
        source,
    })
}

/// The checkpoint folder meant by `--from`: itself, or a run's `best`, else its `last`.
///
/// # Errors
///
/// [`CheckpointError::Missing`], or [`CheckpointError::Absent`].
pub fn resolve(path: &Path) -> Result<PathBuf, CheckpointError> {
    let candidates = [
        path.to_owned(),
        path.join("checkpoints").join("best"),
        path.join("checkpoints").join("last"),
    ];
    candidates
        .into_iter()
        .find(|dir| {
            // A swap that a crash cut short is finished first; a folder without one is just absent.
            let _ = atomic_file::recover_dir(dir);
            dir.join(MANIFEST).is_file()
        })
        .ok_or_else(|| {
            let name = path.display().to_string();
            if path.exists() {
                CheckpointError::Missing(name)
            } else {
                CheckpointError::Absent(name)
            }
        })
}

//! Checkpoints: folders with weights, optimizer state and the progress of the run.
//!
//! A checkpoint is written to a temporary folder and renamed into place, with a hash of each file.
//! A crash therefore leaves the previous checkpoint intact, and a damaged one is rejected.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use burn::optim::ModuleOptimizer;
use burn::tensor::Bytes;
use serde::{Deserialize, Serialize};

use super::Config;
use super::optimizer_state::optimizer_bytes;
use crate::atomic_file;
use crate::model::{
    Classifier, ModelConfig, WeightTransfer, WeightsError, load_weights, save_weights,
};
use crate::model_metadata::ModelSpec;

const FORMAT: u32 = 1;
const MANIFEST: &str = "checkpoint.json";
/// SHA-256 of the manifest, which contains the hashes of the other files.
const MANIFEST_HASH: &str = "checkpoint.sha256";
const WEIGHTS: &str = "weights.bpk";
const EMA: &str = "ema.bpk";
const OPTIMIZER: &str = "optimizer.bpk";

/// Metadata of a checkpoint: `checkpoint.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// Version of the checkpoint format.
    pub format: u32,
    pub model: ModelConfig,
    /// Metadata of the deployed model.
    pub spec: ModelSpec,
    /// The run's config; `None` for converted weights.
    pub config: Option<Config>,
    /// Progress of the run; `None` for converted weights.
    pub progress: Option<TrainProgress>,
    /// Number of BatchNorm layers with placeholder statistics, because the converted file had them
    /// folded.
    #[serde(default)]
    pub unfolded: usize,
    /// SHA-256 of each other file, by name.
    pub files: BTreeMap<String, String>,
}

/// Progress of a run. Sample order and dropout depend on the seed and these numbers alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainProgress {
    /// Number of finished epochs.
    pub epoch: u32,
    /// Number of finished steps in the current epoch.
    pub step_in_epoch: usize,
    /// Number of steps since the weights were initialized, including earlier runs.
    pub steps: u64,
    /// Sum of the losses of the current epoch's steps.
    pub loss_sum: f64,
    /// Seconds spent on the current epoch.
    pub seconds: f64,
    /// Part of these seconds that was spent waiting for data.
    #[serde(default)]
    pub waited: f64,
    /// Lowest validation loss so far.
    pub best_loss: Option<f64>,
    /// Number of epochs since the lowest validation loss.
    #[serde(default)]
    pub since_best: u32,
    /// Hash of the data set's ids and labels, and of the pixel cache if one is used.
    pub data: String,
}

/// An error while reading or writing a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system reported an error.
    #[error("{path}: {cause}")]
    Io { path: String, cause: io::Error },
    /// The path does not exist.
    #[error(
        "{0} does not exist\n\
         hint: `rgby convert --onnx FILE --out {0}` creates a checkpoint with this name"
    )]
    NotFound(String),
    /// The path exists, but is neither a checkpoint nor a run directory with one.
    #[error(
        "{0} is not a checkpoint: it contains no {MANIFEST}, checkpoints/best or checkpoints/last"
    )]
    NotACheckpoint(String),
    /// A file differs from what was written.
    #[error("{path} is damaged: {reason}\nhint: use another checkpoint of the run")]
    Damaged { path: String, reason: String },
    /// The weights do not fit the network.
    #[error("{path}: {cause}")]
    Weights {
        /// Checkpoint directory.
        path: String,
        cause: WeightsError,
    },
}

/// The networks and the optimizer state to save in a checkpoint.
#[derive(Clone, Copy)]
pub struct CheckpointContents<'a> {
    /// The trained network.
    pub classifier: &'a Classifier,
    /// The averaged network, if `train.ema` is set; it is then the one to deploy.
    pub ema: Option<&'a Classifier>,
    /// The optimizer with its state, needed to resume the run.
    pub optimizer: Option<&'a ModuleOptimizer>,
}

impl<'a> CheckpointContents<'a> {
    /// Saves weights only.
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
    /// Creates the metadata of a checkpoint that is not saved yet.
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

    /// Writes a checkpoint directory and atomically replaces an older one of the same name.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`]; an older checkpoint is then still intact.
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
            saved.map_err(|cause| CheckpointError::Weights {
                path: dir.display().to_string(),
                cause,
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

    /// Reads a checkpoint's metadata and verifies the hash of each file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] names the file that is missing or damaged.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        atomic_file::recover_dir(dir).map_err(io_error(dir))?;
        let path = dir.join(MANIFEST);
        if !path.is_file() {
            return Err(CheckpointError::NotACheckpoint(dir.display().to_string()));
        }
        let hash = dir.join(MANIFEST_HASH);
        let expected = fs::read_to_string(&hash).map_err(|error| damaged(&hash, error))?;
        if atomic_file::sha256_file(&path).map_err(io_error(dir))? != expected {
            let reason = format!("its SHA-256 differs from {MANIFEST_HASH}");
            return Err(damaged(&path, reason));
        }
        let checkpoint: Self = serde_json::from_slice(&fs::read(&path).map_err(io_error(dir))?)
            .map_err(|error| damaged(&path, error))?;
        if checkpoint.format != FORMAT {
            let reason = format!(
                "its format is {}, but this version of rgby reads format {FORMAT}",
                checkpoint.format
            );
            return Err(damaged(&path, reason));
        }
        for (name, expected) in &checkpoint.files {
            let path = dir.join(name);
            let found = atomic_file::sha256_file(&path).map_err(|error| damaged(&path, error))?;
            if found != *expected {
                let reason = format!("its SHA-256 differs from {MANIFEST}");
                return Err(damaged(&path, reason));
            }
        }
        Ok(checkpoint)
    }

    /// Loads the deployed weights into `classifier`: the averaged weights if the checkpoint has
    /// them. `transfer` selects which weights are loaded.
    ///
    /// # Errors
    ///
    /// The weights belong to another network.
    pub fn load(
        dir: &Path,
        classifier: Classifier,
        transfer: WeightTransfer,
    ) -> Result<Classifier, CheckpointError> {
        let file = if dir.join(EMA).is_file() {
            EMA
        } else {
            WEIGHTS
        };
        load_file(dir, file, classifier, transfer)
    }

    /// Loads the trained weights and, if present, the averaged weights, each into a network created
    /// by `fresh`.
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

    /// Loads the optimizer's state.
    ///
    /// # Errors
    ///
    /// The checkpoint has no optimizer state, or the state is damaged.
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
    move |cause| CheckpointError::Io { path, cause }
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
    transfer: WeightTransfer,
) -> Result<Classifier, CheckpointError> {
    load_weights(classifier, &dir.join(file), transfer).map_err(|cause| CheckpointError::Weights {
        path: dir.display().to_string(),
        cause,
    })
}

/// Returns the checkpoint directory that `--from` refers to: `path` itself, or the run's `best`, or
/// else its `last`.
///
/// # Errors
///
/// [`CheckpointError::NotACheckpoint`] or [`CheckpointError::NotFound`].
pub fn resolve(path: &Path) -> Result<PathBuf, CheckpointError> {
    let candidates = [
        path.to_owned(),
        path.join("checkpoints").join("best"),
        path.join("checkpoints").join("last"),
    ];
    candidates
        .into_iter()
        .find(|dir| {
            // Completes a replacement that a crash interrupted. An error means that there is none.
            let _ = atomic_file::recover_dir(dir);
            dir.join(MANIFEST).is_file()
        })
        .ok_or_else(|| {
            let name = path.display().to_string();
            if path.exists() {
                CheckpointError::NotACheckpoint(name)
            } else {
                CheckpointError::NotFound(name)
            }
        })
}

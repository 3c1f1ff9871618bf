//! Configuration and report of a run.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::scheduler::ShardSelection;
use crate::{EngineConfig, EngineOptions, Shard, ThreadPlan, Threshold, TtaCombination};
use rgby_data::Images;
use rgby_store::StoreOptions;

/// The models that score, and what turns their probabilities into predictions.
#[derive(Debug, Clone, Default)]
pub struct ScoreModels {
    /// Path or URL of a model file of `rgby export`.
    pub model: PathBuf,
    /// TOML description of a model that rgby did not export.
    pub spec: Option<PathBuf>,
    /// Further models, whose probabilities are averaged with those of `model`.
    pub ensemble: Vec<PathBuf>,
    /// How the probabilities of the eight augmented images are combined; `None` scores each image
    /// as it is.
    pub tta: Option<TtaCombination>,
    pub threshold: Threshold,
    /// Always predict the most probable class, even below its threshold.
    pub keep_argmax: bool,
}

/// What to score and where to write the results. Paths may be URLs.
#[derive(Debug, Clone)]
pub struct ScoreConfig {
    pub models: ScoreModels,
    pub images: Images,
    /// CSV whose first column lists the samples to score, in order; `None` for all, sorted.
    pub ids: Option<PathBuf>,
    /// Output file for predictions; `.parquet` selects Parquet, everything else CSV.
    pub out: PathBuf,
    /// Output file for probabilities.
    pub scores: Option<PathBuf>,
    /// Output file for embeddings of the first model.
    pub embeddings: Option<PathBuf>,
    pub shard: ShardSelection,
    /// Resume an unfinished run.
    pub resume: bool,
    /// Samples per part of an unfinished result.
    pub part_size: usize,
    /// Number of failed samples after which the run ends with an error.
    pub max_errors: Option<usize>,
    pub engine: EngineOptions,
    pub store: StoreOptions,
    /// When set, running batches are finished and the rest is left for `resume`.
    pub stop: Arc<AtomicBool>,
}

impl ScoreConfig {
    /// Scores all images in a folder with one model on the default engine.
    pub fn new(
        model: impl Into<PathBuf>,
        images: impl Into<PathBuf>,
        out: impl Into<PathBuf>,
    ) -> Self {
        Self {
            models: ScoreModels {
                model: model.into(),
                ..ScoreModels::default()
            },
            images: Images::plain(images),
            ids: None,
            out: out.into(),
            scores: None,
            embeddings: None,
            shard: ShardSelection::default(),
            resume: false,
            part_size: 4096,
            max_errors: None,
            engine: EngineOptions::default(),
            store: StoreOptions::default(),
            stop: Arc::default(),
        }
    }
}

/// Result of a run.
#[derive(Debug, Clone)]
pub struct ScoreReport {
    /// Whether all samples are scored and the files written; `false` if `stop` was set.
    pub finished: bool,
    /// Engine and devices, with versions and paths.
    pub engine: String,
    pub engine_config: EngineConfig,
    pub threads: ThreadPlan,
    pub shard: Option<Shard>,
    /// Samples of the shard.
    pub samples: usize,
    /// Samples that were scored before, by the run that this one resumed.
    pub resumed_at: usize,
    /// Samples that this run scored.
    pub scored: usize,
    /// Samples that failed, in this run or in the one that it resumed.
    pub failed: usize,
    /// Time spent scoring, without loading and writing.
    pub seconds: f64,
    /// Path or URL of each file, without credentials.
    pub files: ScoreFiles,
}

/// Paths or URLs of the files of a run, without credentials.
#[derive(Debug, Clone)]
pub struct ScoreFiles {
    pub model: PathBuf,
    pub ensemble: Vec<PathBuf>,
    pub out: PathBuf,
    pub scores: Option<PathBuf>,
    pub embeddings: Option<PathBuf>,
    /// List of failed samples; exists only if there are any.
    pub errors: PathBuf,
}

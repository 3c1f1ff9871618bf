//! Describes a checkpoint, a run or an ONNX file.

mod history;
mod onnx;
mod preview;
mod text;

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use self::text::InspectTable;
use crate::graph::GraphError;
use crate::report::ReportError;
use crate::score::EngineError;
use crate::train::{Checkpoint, CheckpointError, resolve};

pub use self::history::RunHistory;
pub use self::onnx::{GraphSummary, GraphValue, OnnxDescription, OperatorCount};
pub use self::preview::ConversionPreview;

/// The description of a checkpoint, a run or an ONNX file.
#[derive(Debug)]
pub enum Inspection {
    Checkpoint {
        /// The checkpoint directory; the best checkpoint of a run.
        path: PathBuf,
        checkpoint: Box<Checkpoint>,
        /// The metrics of the run, if a run directory was inspected.
        run: Option<Box<RunHistory>>,
    },
    Onnx {
        path: PathBuf,
        file: Box<OnnxDescription>,
    },
}

/// Why a file or directory could not be described.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("{}: {cause}", path.display())]
    Graph { path: PathBuf, cause: GraphError },
    /// A file of rgby that cannot be scored with.
    #[error(transparent)]
    Model(#[from] EngineError),
    #[error("cannot read {}: {cause}", path.display())]
    Hash { path: PathBuf, cause: io::Error },
}

/// Describes a checkpoint directory, a run directory or an ONNX file.
///
/// # Errors
///
/// [`InspectError`] if it is none of them, or damaged.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    if path.is_dir() {
        let dir = resolve(path)?;
        return Ok(Inspection::Checkpoint {
            checkpoint: Box::new(Checkpoint::open(&dir)?),
            path: dir,
            run: RunHistory::read(path)?.map(Box::new),
        });
    }
    Ok(Inspection::Onnx {
        path: path.to_owned(),
        file: Box::new(OnnxDescription::read(path)?),
    })
}

impl Inspection {
    /// Returns the description as one JSON document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match self {
            Self::Checkpoint {
                path,
                checkpoint,
                run,
            } => json!({
                "kind": if run.is_some() { "run" } else { "checkpoint" },
                "path": path,
                "spec": checkpoint.spec,
                "model": checkpoint.model,
                "config": checkpoint.config,
                "progress": checkpoint.progress,
                "unfolded": checkpoint.unfolded,
                "run": run,
                "sha256": checkpoint.files,
            }),
            Self::Onnx { path, file } => json!({
                "kind": "onnx",
                "path": path,
                "spec": file.spec,
                "parameters": file.summary.parameters,
                "nodes": file.summary.nodes,
                "onnx": file.summary,
                "convert": file.preview,
                "sha256": file_hash(file),
            }),
        }
    }
}

impl Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = match self {
            Self::Checkpoint {
                path,
                checkpoint,
                run,
            } => {
                let mut table = InspectTable::new(&path.display().to_string());
                table.spec(&checkpoint.spec);
                table.progress(checkpoint);
                if let Some(run) = run {
                    table.history(run);
                }
                table.hashes(&checkpoint.files);
                table.classes(&checkpoint.spec);
                table
            }
            Self::Onnx { path, file } => {
                let mut table = InspectTable::new(&path.display().to_string());
                if let Some(spec) = &file.spec {
                    table.spec(spec);
                }
                table.summary(&file.summary);
                table.preview(&file.preview);
                table.hashes(&file_hash(file));
                if let Some(spec) = &file.spec {
                    table.classes(spec);
                }
                table
            }
        };
        table.fmt(f)
    }
}

fn file_hash(file: &OnnxDescription) -> BTreeMap<String, String> {
    [("file".to_owned(), file.sha256.clone())].into()
}

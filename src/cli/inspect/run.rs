//! How far a training run came.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::report::{EpochRow, ReportError, TimingRow, best_epoch, read_rows};

/// The rows of a run.
#[derive(Debug, Serialize)]
pub(super) struct Course {
    /// Epochs that the config asks for are in the config; these are done.
    pub epochs: usize,
    /// The epoch of the lowest validation loss; without such losses the last one.
    pub best: Option<EpochRow>,
    pub last: Option<EpochRow>,
    /// Seconds that all training steps took.
    pub seconds: f64,
    pub metrics: Vec<EpochRow>,
    pub timing: Vec<TimingRow>,
}

impl Course {
    /// The course of the run in a folder; none if it holds none.
    pub fn of(dir: &Path) -> anyhow::Result<Option<Self>> {
        if !dir.join("config.toml").is_file() {
            return Ok(None);
        }
        let metrics: Vec<EpochRow> = rows_in(&dir.join("metrics.csv"))?;
        let timing: Vec<TimingRow> = rows_in(&dir.join("timing.csv"))?;
        Ok(Some(Self {
            epochs: metrics.len(),
            best: best_epoch(&metrics).cloned(),
            last: metrics.last().cloned(),
            seconds: timing.iter().map(|row| row.seconds).sum(),
            metrics,
            timing,
        }))
    }
}

/// The rows of a file. A run has none before its first epoch's end.
fn rows_in<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    if path.exists() {
        read_rows(path)
    } else {
        Ok(Vec::new())
    }
}

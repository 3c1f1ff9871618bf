//! How far a training run came.

use std::path::Path;

use serde::Serialize;

use crate::report::{EpochRow, TimingRow, best_epoch, read_rows};

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
        // A run has no rows before its first epoch's end.
        let metrics: Vec<EpochRow> = match dir.join("metrics.csv") {
            path if path.exists() => read_rows(&path)?,
            _ => Vec::new(),
        };
        let timing: Vec<TimingRow> = match dir.join("timing.csv") {
            path if path.exists() => read_rows(&path)?,
            _ => Vec::new(),
        };
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

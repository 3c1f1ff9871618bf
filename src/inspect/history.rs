//! The metrics of a training run so far.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::report::{EpochRow, ReportError, TimingRow, best_epoch, read_rows};

/// The metrics of a training run so far.
#[derive(Debug, Serialize)]
pub struct RunHistory {
    /// Number of finished epochs.
    pub epochs: usize,
    /// The epoch with the lowest validation loss; without validation losses the last one.
    pub best: Option<EpochRow>,
    pub last: Option<EpochRow>,
    /// Duration of all training steps in seconds.
    pub seconds: f64,
    pub metrics: Vec<EpochRow>,
    pub timing: Vec<TimingRow>,
}

impl RunHistory {
    /// Reads the metrics of the run in `dir`; none if it is not a run directory.
    pub(super) fn read(dir: &Path) -> Result<Option<Self>, ReportError> {
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

/// Reads the rows of a file. It does not exist before the end of the first epoch.
fn rows_in<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    if path.exists() {
        read_rows(path)
    } else {
        Ok(Vec::new())
    }
}

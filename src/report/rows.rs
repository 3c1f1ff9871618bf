//! What a training run writes about each of its epochs.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ReportError;

/// What one epoch of training came to: a row of `metrics.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Mean loss over the epoch's training batches.
    pub train_loss: f64,
    /// Mean loss over the validation samples, if there are any.
    pub valid_loss: Option<f64>,
    /// Macro-F1, 0–1.
    pub f1_mean: f64,
    /// Standard deviation of F1 over the classes.
    pub f1_std: f64,
    /// F1 of the worst class, 0–1.
    pub f1_min: f64,
    /// F1 of the best class, 0–1.
    pub f1_max: f64,
    /// Learning rate at the end of the epoch.
    pub lr: f64,
}

/// How long an epoch took: a row of `timing.csv`. It stands apart from the metrics, which are the
/// same to the bit however often a run was interrupted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimingRow {
    /// Number of the epoch, from 1.
    pub epoch: u32,
    /// Seconds that its training steps took.
    pub seconds: f64,
    /// Training samples per second.
    pub images_per_s: f64,
    /// Of the seconds, those in which the next batch was not there yet.
    pub waited: f64,
}

impl TimingRow {
    /// Of the seconds, the share in which steps waited for data, percent.
    #[must_use]
    pub fn waited_percent(&self) -> f64 {
        100.0 * self.waited / self.seconds.max(1e-9)
    }
}

/// The epoch of the lowest validation loss; without such losses the last one.
#[must_use]
pub fn best_epoch(rows: &[EpochRow]) -> Option<&EpochRow> {
    let loss = |row: &EpochRow| row.valid_loss.filter(|loss| loss.is_finite());
    let judged = rows.iter().filter_map(|row| Some((row, loss(row)?)));
    let best = judged.min_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map(|(row, _)| row).or(rows.last())
}

/// The numbers of an epoch, under the names that programs which follow runs show them by.
pub fn scalars(row: &EpochRow, timing: &TimingRow) -> impl Iterator<Item = (&'static str, f64)> {
    let scalars = [
        ("loss/train", Some(row.train_loss)),
        ("loss/validation", row.valid_loss),
        ("f1/mean", Some(row.f1_mean)),
        ("f1/std", Some(row.f1_std)),
        ("f1/min", Some(row.f1_min)),
        ("f1/max", Some(row.f1_max)),
        ("learning_rate", Some(row.lr)),
        ("time/seconds", Some(timing.seconds)),
        ("time/images_per_s", Some(timing.images_per_s)),
        ("time/waited", Some(timing.waited)),
    ];
    let there = |(name, value): (_, Option<f64>)| Some((name, value?));
    scalars.into_iter().filter_map(there)
}

/// Reads the rows of a `metrics.csv` or `timing.csv`.
///
/// # Errors
///
/// The file cannot be read or has other columns.
pub fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    csv::Reader::from_path(path)
        .and_then(|reader| reader.into_deserialize().collect())
        .map_err(|source| ReportError::Rows {
            path: path.to_owned(),
            source,
        })
}

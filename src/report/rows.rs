//! Rows of `metrics.csv` and `timing.csv`.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::ReportError;

/// Metrics of one epoch: a row of `metrics.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRow {
    /// From 1.
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

/// Timing of one epoch: a row of `timing.csv`.
///
/// Separate from the metrics, which are bit-identical for interrupted and uninterrupted runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TimingRow {
    /// From 1.
    pub epoch: u32,
    /// Duration of the training steps, seconds.
    pub seconds: f64,
    pub images_per_s: f64,
    /// Time spent waiting for batches, seconds; part of `seconds`.
    pub waited: f64,
}

impl TimingRow {
    /// Returns the share of the training time spent waiting for batches, percent.
    #[must_use]
    pub fn waited_percent(&self) -> f64 {
        100.0 * self.waited / self.seconds.max(1e-9)
    }
}

/// Returns the epoch with the lowest finite validation loss; without any, the last epoch.
#[must_use]
pub fn best_epoch(rows: &[EpochRow]) -> Option<&EpochRow> {
    let loss = |row: &EpochRow| row.valid_loss.filter(|loss| loss.is_finite());
    let validated = rows.iter().filter_map(|row| Some((row, loss(row)?)));
    let best = validated.min_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map(|(row, _)| row).or(rows.last())
}

/// Returns the scalars of an epoch by their names in `TensorBoard` and `MLflow`.
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
    let defined = |(name, value): (_, Option<f64>)| Some((name, value?));
    scalars.into_iter().filter_map(defined)
}

/// Reads the rows of a `metrics.csv` or `timing.csv`.
///
/// # Errors
///
/// The file cannot be read or has other columns.
pub fn read_rows<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, ReportError> {
    csv::Reader::from_path(path)
        .and_then(|reader| reader.into_deserialize().collect())
        .map_err(|cause| ReportError::Rows {
            path: path.to_owned(),
            cause,
        })
}

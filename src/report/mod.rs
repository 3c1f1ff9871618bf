//! Pictures and pages of training runs and evaluations, and a run's course for `TensorBoard`.

mod chart;
mod curves;
mod page;
mod rows;
mod tensorboard;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use crate::fsx;
use crate::score::BatchSpeed;

pub use page::{Card, EvaluationPage, OperatingPoint, Picked, Progress, RunPage, pick};
pub use rows::{EpochRow, TimingRow, best_epoch, read_rows, scalars};
pub use tensorboard::EventFile;

/// Why a picture could not be written or rows not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// The rows could not be read.
    #[error("{}: not the metrics of a training run: {source}", .path.display())]
    Rows {
        /// The file.
        path: PathBuf,
        /// What is wrong, and on which line.
        source: csv::Error,
    },
}

/// Draws images per second by batch size to the SVG file `path`: the sessions alone, what the costs
/// allow, and end to end.
///
/// # Errors
///
/// The picture cannot be written.
pub fn scoring_speed(path: &Path, batches: &[BatchSpeed]) -> Result<(), ReportError> {
    let chart = chart::titled("Scoring", curves::speed_chart(batches));
    Ok(fsx::write_atomic(path, chart.file().as_bytes())?)
}

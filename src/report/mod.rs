//! Pictures and pages of training runs and evaluations, and a run's course for `TensorBoard`.

mod chart;
mod page;
mod rows;
mod speed;
mod tensorboard;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use page::{Card, EvaluationPage, OperatingPoint, Picked, RunPage, RunStatus, pick};
pub use rows::{EpochRow, TimingRow, best_epoch, read_rows, scalars};
pub use speed::scoring_speed;
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

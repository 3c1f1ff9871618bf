//! HTML reports and charts of training runs and evaluations, and event files for `TensorBoard`.

mod chart;
mod page;
mod rows;
mod speed;
mod tensorboard;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

pub use page::{
    EvaluationPage, OperatingPoint, RunPage, RunStatus, SampleCard, SampleValues, extreme_samples,
};
pub use rows::{EpochRow, TimingRow, best_epoch, read_rows, scalars};
pub use speed::scoring_speed;
pub use tensorboard::EventFile;

/// A report could not be written, or metrics could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Write(#[from] io::Error),
    #[error("{}: not the metrics of a training run: {cause}", .path.display())]
    Rows { path: PathBuf, cause: csv::Error },
}

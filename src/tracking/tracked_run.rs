//! Data about a run for a tracking server.

use std::path::PathBuf;

/// A run that is logged to a tracking server.
#[derive(Debug, Clone)]
pub struct TrackedRun {
    /// Run directory with `config.toml`, `metrics.csv` and `timing.csv`.
    pub folder: PathBuf,
    pub name: String,
    /// Name of the MLflow experiment.
    pub experiment: String,
    /// Names and values of tags that describe the origin of the run.
    pub tags: Vec<(String, String)>,
}

/// A message for the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackingNotice {
    /// Information.
    Note(String),
    /// Data is missing on the server.
    Warning(String),
}

/// How a tracked run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackingStatus {
    /// All epochs are done.
    Finished,
    /// The run ended with an error.
    Failed,
    /// The run was stopped by a signal.
    Killed,
}

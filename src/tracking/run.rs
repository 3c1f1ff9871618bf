//! What a server is told of a run.

use std::path::PathBuf;

/// The run that is followed.
#[derive(Debug, Clone)]
pub struct TrackedRun {
    /// Its folder, with `config.toml`, `metrics.csv` and `timing.csv`.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// The experiment that it belongs to.
    pub experiment: String,
    /// Where it came from: names and values.
    pub tags: Vec<(String, String)>,
}

/// Something to tell people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Good to know.
    Note(String),
    /// Something is missing on the server.
    Warning(String),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// All is done.
    Finished,
    /// With an error.
    Failed,
    /// It was told to stop.
    Killed,
}

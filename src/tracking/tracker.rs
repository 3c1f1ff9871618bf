//! Optional tracking of a run: does nothing if no server was requested.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Mlflow, MlflowUrl, TrackedRun, TrackingNotice, TrackingStatus};

/// Sends a run to a tracking server, if one was requested.
#[derive(Default)]
pub struct Tracker {
    server: Option<(MlflowUrl, TrackedRun)>,
    /// Present once the run directory exists.
    session: Mutex<Option<Mlflow>>,
}

impl Tracker {
    /// Prepares the tracking of a run; does not contact the server yet.
    #[must_use]
    pub fn new(url: MlflowUrl, run: TrackedRun) -> Self {
        Self {
            server: Some((url, run)),
            session: Mutex::default(),
        }
    }

    /// Starts tracking a new run, or a resumed run after `done` epochs.
    ///
    /// # Errors
    ///
    /// A warning why the run is not tracked; the run itself continues.
    pub fn start(&self, done: u32) -> Result<(), TrackingNotice> {
        let Some((url, run)) = &self.server else {
            return Ok(());
        };
        let session = Mlflow::start(url, run.clone(), done).map_err(|error| {
            TrackingNotice::Warning(format!("this run is not logged to MLflow: {error}"))
        })?;
        *self.lock() = Some(session);
        Ok(())
    }

    /// Sends the metrics of the first `done` epochs.
    pub fn epoch(&self, done: u32) {
        if let Some(mlflow) = &*self.lock() {
            mlflow.epoch(done);
        }
    }

    /// Returns the messages since the last call.
    #[must_use]
    pub fn notices(&self) -> Vec<TrackingNotice> {
        self.lock().as_ref().map_or_else(Vec::new, Mlflow::notices)
    }

    /// Ends tracking; returns the remaining messages.
    #[must_use]
    pub fn end(&self, status: TrackingStatus) -> Vec<TrackingNotice> {
        let session = self.lock().take();
        session.map_or_else(Vec::new, |mlflow| mlflow.end(status))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Mlflow>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TrackedRun {
    /// Describes the run in the directory `folder`, which may be given as `.`.
    #[must_use]
    pub fn new(folder: &Path, experiment: &str, tags: Vec<(String, String)>) -> Self {
        let absolute: PathBuf = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
        let name = absolute.file_name().unwrap_or(absolute.as_os_str());
        Self {
            folder: folder.to_owned(),
            name: name.to_string_lossy().into_owned(),
            experiment: experiment.to_owned(),
            tags,
        }
    }
}

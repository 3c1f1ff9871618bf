//! Options for experiment tracking, and the connection to the tracking server.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::Args;

use crate::data::Dataset;
use crate::tracking::{Mlflow, MlflowUrl, TrackedRun, TrackingNotice, TrackingStatus};
use crate::train::RunOrigin;

/// Experiment tracking options.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Tracking")]
pub struct TrackingArgs {
    /// MLflow tracking server to send config, metrics and report to
    ///
    /// A failing server never stops the run. Credentials are read from `MLFLOW_TRACKING_TOKEN`, or
    /// from `MLFLOW_TRACKING_USERNAME` and `MLFLOW_TRACKING_PASSWORD`.
    #[arg(long, value_name = "URL")]
    pub log_mlflow: Option<MlflowUrl>,
    /// MLflow experiment of the run
    #[arg(
        long,
        value_name = "NAME",
        default_value = "rgby",
        requires = "log_mlflow"
    )]
    pub mlflow_experiment: String,
}

/// Returns the origin of a run and the hash of its data as tags.
fn tags(origin: &RunOrigin, data: &String) -> Vec<(String, String)> {
    let tags = [
        ("rgby.version", Some(&origin.rgby_version)),
        ("rgby.device", Some(&origin.device)),
        ("rgby.images", Some(&origin.images)),
        ("rgby.labels", Some(&origin.labels)),
        ("rgby.data", Some(data)),
        ("rgby.from", origin.from.as_ref()),
        ("rgby.head", origin.head.as_ref()),
    ];
    let present = |(name, value): (&str, Option<&String>)| Some((name.to_owned(), value?.clone()));
    tags.into_iter().filter_map(present).collect()
}

/// Sends a run to a tracking server, if one was requested.
#[derive(Default)]
pub(super) struct Tracker {
    server: Option<(MlflowUrl, TrackedRun)>,
    /// Present once the run directory exists.
    session: Mutex<Option<Mlflow>>,
}

impl Tracker {
    /// Prepares the tracking of a run; does not contact the server yet.
    pub fn new(args: &TrackingArgs, out: &Path, origin: &RunOrigin, dataset: &Dataset) -> Self {
        let server = args.log_mlflow.clone().map(|url| {
            let run = TrackedRun {
                folder: out.to_owned(),
                name: name(out),
                experiment: args.mlflow_experiment.clone(),
                tags: tags(origin, &dataset.fingerprint()),
            };
            (url, run)
        });
        Self {
            server,
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
    pub fn notices(&self) -> Vec<TrackingNotice> {
        self.lock().as_ref().map_or_else(Vec::new, Mlflow::notices)
    }

    /// Ends tracking; returns the remaining messages.
    pub fn end(&self, status: TrackingStatus) -> Vec<TrackingNotice> {
        let session = self.lock().take();
        session.map_or_else(Vec::new, |mlflow| mlflow.end(status))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Mlflow>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of a run directory, which may be given as `.`.
fn name(out: &Path) -> String {
    let absolute: PathBuf = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    let name = absolute.file_name().unwrap_or(absolute.as_os_str());
    name.to_string_lossy().into_owned()
}

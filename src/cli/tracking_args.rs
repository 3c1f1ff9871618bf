//! Servers that follow a training run: flags, and what they start.

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

/// Where a run came from, and the hash of its data, as tags.
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
    let known = |(name, value): (&str, Option<&String>)| Some((name.to_owned(), value?.clone()));
    tags.into_iter().filter_map(known).collect()
}

/// The server that follows a run, if one does.
pub(super) struct Tracker {
    to: Option<(MlflowUrl, TrackedRun)>,
    /// Once the run's folder is there.
    started: Mutex<Option<Mlflow>>,
}

impl Tracker {
    /// Contacts nobody yet.
    pub fn new(args: &TrackingArgs, out: &Path, origin: &RunOrigin, dataset: &Dataset) -> Self {
        let to = args.log_mlflow.clone().map(|url| {
            let run = TrackedRun {
                folder: out.to_owned(),
                name: name(out),
                experiment: args.mlflow_experiment.clone(),
                tags: tags(origin, &dataset.fingerprint()),
            };
            (url, run)
        });
        Self {
            to,
            started: Mutex::default(),
        }
    }

    /// The run begins, or goes on after `done` epochs.
    ///
    /// # Errors
    ///
    /// It cannot be followed: why, and that it goes on all the same.
    pub fn start(&self, done: u32) -> Result<(), TrackingNotice> {
        let Some((url, run)) = &self.to else {
            return Ok(());
        };
        let started = Mlflow::start(url, run.clone(), done).map_err(|error| {
            TrackingNotice::Warning(format!("MLflow does not follow this run: {error}"))
        })?;
        *self.lock() = Some(started);
        Ok(())
    }

    /// So many epochs are done.
    pub fn epoch(&self, done: u32) {
        if let Some(mlflow) = &*self.lock() {
            mlflow.epoch(done);
        }
    }

    /// What there is to say since the last call.
    pub fn notices(&self) -> Vec<TrackingNotice> {
        self.lock().as_ref().map_or_else(Vec::new, Mlflow::notices)
    }

    /// The run has ended; returns what there is to say.
    pub fn end(&self, status: TrackingStatus) -> Vec<TrackingNotice> {
        let started = self.lock().take();
        started.map_or_else(Vec::new, |mlflow| mlflow.end(status))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Mlflow>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a run's folder, which may be given as `.`.
fn name(out: &Path) -> String {
    let whole: PathBuf = std::path::absolute(out).unwrap_or_else(|_| out.to_owned());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}

//! Options for experiment tracking.

use std::path::Path;

use clap::Args;

use crate::data::Dataset;
use crate::tracking::{MlflowUrl, TrackedRun, Tracker};
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

impl TrackingArgs {
    /// Prepares the tracking of the run in `out`.
    pub fn tracker(&self, out: &Path, origin: &RunOrigin, dataset: &Dataset) -> Tracker {
        let Some(url) = self.log_mlflow.clone() else {
            return Tracker::default();
        };
        let tags = origin.tags(&dataset.fingerprint());
        Tracker::new(url, TrackedRun::new(out, &self.mlflow_experiment, tags))
    }
}

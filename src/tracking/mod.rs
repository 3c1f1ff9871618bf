//! Logging of training runs to an MLflow tracking server, over its REST API.
//!
//! A separate thread posts to the server, so that a slow or failing server neither stops nor slows
//! training. The thread reads `metrics.csv` and `timing.csv` in the run directory and keeps no
//! queue in memory. Epochs that the server missed are posted when it responds again, if necessary
//! by the next process that resumes the run. The server is asked for the last epoch that it has, so
//! that no epoch is posted twice.
//!
//! Without the feature `remote`, parsing the URL is an error.

#[cfg(not(feature = "remote"))]
mod disabled;
#[cfg(feature = "remote")]
mod mlflow;
mod tracked_run;
mod tracker;

#[cfg(not(feature = "remote"))]
pub use disabled::{Mlflow, MlflowUrl};
#[cfg(feature = "remote")]
pub use mlflow::{Mlflow, MlflowUrl};
pub use tracked_run::{TrackedRun, TrackingNotice, TrackingStatus};
pub use tracker::Tracker;

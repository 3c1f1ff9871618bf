//! A training run on a tracking server: MLflow, over its REST API.
//!
//! Nothing that a server does or fails to do stops or slows the training: a thread of its own posts,
//! and what is to be posted waits in the run's folder, in `metrics.csv` and `timing.csv`, not in
//! memory. So what a server missed is posted as soon as it answers, if need be by the next process
//! that resumes the run. Which epochs the server has is asked of the server, so that none is posted
//! twice.
//!
//! Without the feature `remote`, the URL is refused where it is parsed.

#[cfg(feature = "remote")]
mod mlflow;
mod run;
#[cfg(not(feature = "remote"))]
mod without;

#[cfg(feature = "remote")]
pub use mlflow::{Mlflow, MlflowUrl};
pub use run::{Notice, Status, TrackedRun};
#[cfg(not(feature = "remote"))]
pub use without::{Mlflow, MlflowUrl};

//! Stub of the tracking API for a build without the feature `remote`: every URL is an error.

use std::str::FromStr;

use super::{TrackedRun, TrackingNotice, TrackingStatus};

/// A type without values. It is private, so that callers get no warnings about unreachable code.
#[derive(Debug, Clone)]
enum NeverTracked {}

/// The address of a server; has no values in this build.
#[derive(Debug, Clone)]
pub struct MlflowUrl(NeverTracked);

impl FromStr for MlflowUrl {
    type Err = String;

    fn from_str(_: &str) -> Result<Self, String> {
        Err(
            "rgby was built without the feature `remote`, which supports MLflow servers; build it \
             with the default features, or use RUN/report.html and RUN/tensorboard"
                .into(),
        )
    }
}

/// Logs a run; has no values in this build.
#[derive(Debug)]
pub struct Mlflow(NeverTracked);

impl Mlflow {
    #[allow(clippy::missing_errors_doc)]
    pub fn start(to: &MlflowUrl, _: TrackedRun, _: u32) -> Result<Self, String> {
        match to.0 {}
    }

    pub fn epoch(&self, _: u32) {
        match self.0 {}
    }

    #[must_use]
    pub fn notices(&self) -> Vec<TrackingNotice> {
        match self.0 {}
    }

    #[must_use]
    pub fn end(self, _: TrackingStatus) -> Vec<TrackingNotice> {
        match self.0 {}
    }
}

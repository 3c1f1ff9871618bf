//! Tracking in a program that was built without it: there is none, as no URL is accepted.

use std::str::FromStr;

use super::{Notice, Status, TrackedRun};

/// Nothing is of this type. It is private, so that code which would never run compiles without a
/// warning elsewhere.
#[derive(Debug, Clone)]
enum Nothing {}

/// The address of a server, which cannot be.
#[derive(Debug, Clone)]
pub struct MlflowUrl(Nothing);

impl FromStr for MlflowUrl {
    type Err = String;

    fn from_str(_: &str) -> Result<Self, String> {
        Err(
            "this rgby was built without the feature `remote`, which speaks to servers; build it \
             with the default features, or look at RUN/report.html and RUN/tensorboard"
                .into(),
        )
    }
}

/// Posts a run, which cannot be.
#[derive(Debug)]
pub struct Mlflow(Nothing);

impl Mlflow {
    #[allow(missing_docs, clippy::missing_errors_doc)]
    pub fn start(to: &MlflowUrl, _: TrackedRun, _: u32) -> Result<Self, String> {
        match to.0 {}
    }

    #[allow(missing_docs)]
    pub fn epoch(&self, _: u32) {
        match self.0 {}
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        match self.0 {}
    }

    #[allow(missing_docs)]
    #[must_use]
    pub fn end(self, _: Status) -> Vec<Notice> {
        match self.0 {}
    }
}

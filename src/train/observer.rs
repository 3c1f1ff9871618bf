//! Progress of a training run, for its caller.

use super::StepReport;
use crate::report::{EpochRow, TimingRow};

/// Receives the progress of a run.
pub trait TrainingObserver {
    /// Called once, when the run directory exists. `_done` is the number of epochs that a resumed
    /// run has finished.
    fn started(&self, _done: u32) {}
    /// Called after each step.
    fn step(&self, report: &StepReport);
    /// Called after each batch while the features of a frozen backbone are computed: `_done` of
    /// `_all` rows.
    fn extracted(&self, _done: usize, _all: usize) {}
    /// Called after each epoch.
    fn epoch(&self, row: &EpochRow, timing: &TimingRow);
    /// Called with a one-line message for the user.
    fn note(&self, text: &str);
}

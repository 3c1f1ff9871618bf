//! Progress and notes of a run, for a terminal, a notebook or a log.

use std::io;

/// Receives progress and notes of a run. All methods are called on the thread that started the run.
///
/// Each method does nothing by default; `&()` observes nothing.
pub trait ScoreObserver {
    /// Called once, when everything is checked, loaded and listed and no sample is scored yet.
    ///
    /// # Errors
    ///
    /// An error ends the run before any work is done.
    fn ready(&self) -> io::Result<()> {
        Ok(())
    }

    /// Called before the first sample; `done` of `samples` were scored by an earlier run.
    fn started(&self, samples: usize, done: usize) {
        let _ = (samples, done);
    }

    /// Called after each batch with the number of samples scored so far, earlier runs included.
    fn scored(&self, done: usize) {
        let _ = done;
    }

    /// Called after the last sample, and also when scoring ends with an error.
    fn finished(&self) {}

    /// Receives a line of information.
    fn note(&self, line: &str) {
        let _ = line;
    }

    /// Receives a line that should be shown even if notes are hidden.
    fn warn(&self, line: &str) {
        let _ = line;
    }
}

impl ScoreObserver for () {}

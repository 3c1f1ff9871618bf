//! Converts panics of workers into errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::Sender;

use super::{BatchScores, ScoreError};
use rgby_common::catch_panic;

/// Runs a worker and sends its error, or its panic as an error.
pub(super) fn guard(
    worker: &'static str,
    errors: &Sender<Result<BatchScores, ScoreError>>,
    work: impl FnOnce() -> Result<(), ScoreError>,
) {
    let error = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(panic) => ScoreError::Panic {
            worker,
            message: catch_panic::panic_message(&*panic),
        },
    };
    // Sending fails only if the collector has ended.
    let _ = errors.send(Err(error));
}

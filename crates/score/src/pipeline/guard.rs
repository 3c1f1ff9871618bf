//! Workers whose panics become errors.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::Sender;

use super::{BatchScores, ScoreError};
use rgby_common::catch_panic;

/// Runs a worker and reports its error, or its panic as one.
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
    // Sending fails only if the collector is gone, and nobody waits for the error then.
    let _ = errors.send(Err(error));
}

//! Workers whose panics become errors.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::Sender;

use super::{BatchScores, ScoreError};

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
            message: panic_message(&*panic),
        },
    };
    // Sending fails only if the collector is gone, and nobody waits for the error then.
    let _ = errors.send(Err(error));
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

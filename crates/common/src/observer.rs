//! Progress and notes of functions that take a while.

/// Receives the progress and the notes of a long-running function.
///
/// Every method does nothing by default. `()` implements the trait for callers without a display.
pub trait Observer: Sync {
    /// `done` of `total` items of `task` (for example "calibrating") are finished.
    ///
    /// Called from any thread, and not necessarily in ascending order.
    fn progress(&self, _task: &str, _done: usize, _total: usize) {}

    /// A message for the user, without a final line break.
    fn note(&self, _text: &str) {}

    /// A message that a user must see even if notes are hidden.
    fn warn(&self, _text: &str) {}
}

impl Observer for () {}

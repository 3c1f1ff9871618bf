//! Samples in, probabilities out, as Arrow IPC streams: what a long-lived worker speaks.
//!
//! [`Requests`] reads record batches of samples, each of them a [`Request`] that is also the
//! [`FileSource`](rgby_imaging::FileSource) of its samples; [`Answers`] writes one record batch
//! for each. `docs/worker.md` is the protocol.

mod answers;
mod columns;
mod error;
mod metered;
mod request;
mod requests;
#[cfg(test)]
mod tests;

pub use answers::{Answers, Scores};
pub use error::{Place, StreamError};
pub use request::Request;
pub use requests::{MOST_ROWS, Requests};

/// The column of a sample's id, in requests and answers.
const ID: &str = "id";
/// The column of classes that are predicted.
const PREDICTED: &str = "predicted";
/// The column of what is wrong with a sample.
const ERROR: &str = "error";

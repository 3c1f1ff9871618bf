//! Samples in, probabilities out, as Arrow IPC streams: what a long-lived worker speaks.
//!
//! [`RequestReader`] reads record batches of samples, each of them a [`Request`] that is also the
//! [`FileSource`](rgby_imaging::FileSource) of its samples; [`ResponseWriter`] writes one record batch
//! for each. `docs/worker.md` is the protocol.

mod columns;
mod error;
mod metered;
mod request;
mod request_reader;
mod response_writer;
#[cfg(test)]
mod tests;

pub use error::{StreamError, StreamPosition};
pub use request::Request;
pub use request_reader::{MOST_ROWS, RequestReader};
pub use response_writer::{ResponseRows, ResponseWriter};

/// The column of a sample's id, in requests and answers.
const ID: &str = "id";
/// The column of classes that are predicted.
const PREDICTED: &str = "predicted";
/// The column of what is wrong with a sample.
const ERROR: &str = "error";

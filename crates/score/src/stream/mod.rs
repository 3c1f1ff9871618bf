//! Samples and probabilities as Arrow IPC streams: the protocol of the worker.
//!
//! [`RequestReader`] reads record batches of samples, each of them a [`Request`] that is also the
//! [`FileSource`](rgby_imaging::FileSource) of its samples; [`ResponseWriter`] writes one record
//! batch for each. `docs/worker.md` defines the protocol.

mod columns;
mod error;
mod limited_reader;
mod request;
mod request_reader;
mod response_writer;
#[cfg(test)]
mod tests;

pub use error::{StreamError, StreamPosition};
pub use request::Request;
pub use request_reader::RequestReader;
pub use response_writer::{ResponseRows, ResponseWriter};

/// Maximum number of samples per batch: limits the memory per sample for images given by path.
pub const MOST_ROWS: usize = 65_536;

/// Column of the id, in requests and responses.
const ID: &str = "id";
/// Column of the predicted classes.
const PREDICTED: &str = "predicted";
/// Column of the error of a sample.
const ERROR: &str = "error";

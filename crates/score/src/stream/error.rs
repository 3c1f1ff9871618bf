//! Errors of a stream as a whole.

use std::fmt;
use std::io;

use super::MOST_ROWS;

/// Why the stream cannot be read or written. An error of a single sample is part of its response
/// instead.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The bytes are not an Arrow IPC stream.
    #[error("stdin, {place}: cannot be read as an Arrow IPC stream: {reason}")]
    Malformed {
        place: StreamPosition,
        reason: String,
    },
    /// The stream ends within a message.
    #[error(
        "stdin ends in the middle of {place}\nhint: check that the writer was not stopped, and flushes"
    )]
    Truncated { place: StreamPosition },
    #[error(
        "stdin: {place} has more than {limit} MiB\n\
         hint: send fewer samples per batch, or increase --worker-batch-mib"
    )]
    TooLarge {
        place: StreamPosition,
        /// In MiB.
        limit: u64,
    },
    #[error("stdin: {place} has {rows} rows; send at most {MOST_ROWS} samples per batch")]
    TooManyRows { place: StreamPosition, rows: usize },
    #[error("stdin: there is no column `{name}` among {}; {wanted}", list(.found))]
    MissingColumn {
        name: String,
        found: Vec<String>,
        /// The required columns.
        wanted: String,
    },
    #[error("stdin: there are two columns `{name}`; keep one of them")]
    DuplicateColumn { name: String },
    /// A column has an unsupported type.
    #[error("stdin: the column `{name}` is {found}; {wanted}")]
    WrongType {
        name: String,
        found: String,
        wanted: &'static str,
    },
    /// Some images are bytes and others are paths.
    #[error(
        "stdin: the column `{bytes}` holds files and `{paths}` paths; send all stains as files \
         (binary) or all as paths (utf8)"
    )]
    Mixed { bytes: String, paths: String },
    #[error("stdin: the column `id` is null in row {row} of {place}; give each sample an id")]
    NoId {
        place: StreamPosition,
        /// Counted from 0.
        row: usize,
    },
    /// A class has the name of another column of responses.
    #[error(
        "a class of the model is called `{name}`, like another column of responses\n\
         hint: export the model with another name for that class"
    )]
    ClassName { name: String },
    #[error("cannot write to stdout: {0}")]
    Write(io::Error),
}

/// A position in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPosition {
    Head,
    /// A batch, counted from 1.
    Batch(u64),
}

impl fmt::Display for StreamPosition {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the schema"),
            Self::Batch(number) => write!(f, "batch {number}"),
        }
    }
}

fn list(columns: &[String]) -> String {
    const SHOWN: usize = 20;
    let names: Vec<String> = columns
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{}`", name.escape_default()))
        .collect();
    match columns.len() {
        0 => "none at all".into(),
        count if count > SHOWN => format!("{} and {} more", names.join(", "), count - SHOWN),
        _ => names.join(", "),
    }
}

//! What can be wrong with a stream as a whole.

use std::fmt;
use std::io;

use super::MOST_ROWS;

/// Why no more batches are read or written. What is wrong with one sample is no such error, but
/// its answer.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The bytes are no Arrow IPC stream.
    #[error("stdin, {place}: cannot be read as an Arrow IPC stream: {reason}")]
    Malformed {
        /// Where that is.
        place: StreamPosition,
        /// What the decoder said.
        reason: String,
    },
    /// The stream ends within a message.
    #[error("stdin ends in the middle of {place}; whoever writes it was stopped, or did not flush")]
    Truncated {
        /// Where that is.
        place: StreamPosition,
    },
    /// A batch has more bytes than may be kept in memory.
    #[error(
        "stdin: {place} has more than {limit} MiB; send fewer samples at a time, or raise \
         --worker-batch-mib"
    )]
    TooLarge {
        /// Where that is.
        place: StreamPosition,
        /// The limit.
        limit: u64,
    },
    /// A batch has more rows than may be.
    #[error("stdin: {place} has {rows} rows; send at most {MOST_ROWS} samples at a time")]
    TooManyRows {
        /// Where that is.
        place: StreamPosition,
        /// Its rows.
        rows: usize,
    },
    /// A column is not there.
    #[error("stdin: there is no column `{name}` among {}; {wanted}", list(.found))]
    MissingColumn {
        /// The column.
        name: String,
        /// The columns that are there.
        found: Vec<String>,
        /// What there should be.
        wanted: String,
    },
    /// Two columns have one name.
    #[error("stdin: there are two columns `{name}`; keep one of them")]
    DuplicateColumn {
        /// The name.
        name: String,
    },
    /// A column is of a type that means nothing here.
    #[error("stdin: the column `{name}` is {found}; {wanted}")]
    WrongType {
        /// The column.
        name: String,
        /// Its type.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// Some stains are files and others paths.
    #[error(
        "stdin: the column `{bytes}` holds files and `{paths}` paths; send all stains as files \
         (binary) or all as paths (utf8)"
    )]
    Mixed {
        /// A binary column.
        bytes: String,
        /// A column of text.
        paths: String,
    },
    /// A sample has no id.
    #[error("stdin: the column `id` is null in row {row} of {place}; give each sample an id")]
    NoId {
        /// Where that is.
        place: StreamPosition,
        /// The row, from 0.
        row: usize,
    },
    /// A class is called like a column that answers have anyway.
    #[error(
        "a class of the model is called `{name}`, as is a column of the answers; export the model \
         with another name of that class"
    )]
    ClassName {
        /// The name.
        name: String,
    },
    /// The answers cannot be written.
    #[error("cannot write to stdout: {0}")]
    Write(io::Error),
}

/// Where in a stream something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamPosition {
    /// Before all batches.
    Head,
    /// In a batch, counted from 1.
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

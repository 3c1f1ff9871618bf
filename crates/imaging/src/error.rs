//! Errors of finding and reading samples.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{DecodeError, IMAGE_EXTENSIONS};

/// Why no samples were found in a folder.
#[derive(Debug, Error)]
pub enum FindError {
    #[error("cannot list the image folder {}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error(
        "{} is not a folder\nhint: name the folder of the image files, or a manifest (.csv or \
         .parquet)", .0.display()
    )]
    NotAFolder(PathBuf),
    /// A file name is not UTF-8. The text is one line, as `check-data` lists it.
    #[error("the file name {} is not UTF-8; rename the file", .0.display())]
    NotText(PathBuf),
    /// No file has a matching name.
    #[error(
        "no image files in {}: expected <Id>_<{channels}>.<{}> or <Id>.tif with several channels, \
         found {found}\nhint: use --pattern for other file names",
        path.display(), IMAGE_EXTENSIONS.join("|")
    )]
    Empty {
        path: PathBuf,
        /// The required channels, joined by `|`.
        channels: String,
        /// What the folder contains instead.
        found: String,
    },
    /// `--channel` selects channels of TIFF files, and there are none.
    #[error(
        "no TIFF files in {} for --channel to select from, among {count} entries\nhint: if each \
         file is one channel, use --pattern",
        path.display()
    )]
    NoTiff {
        path: PathBuf,
        /// Number of entries of the folder.
        count: usize,
    },
    /// Two files match one channel of one sample. The text is one line, as `check-data` lists it.
    #[error(
        "sample `{id}` has two files for channel {channel}: {} and {}; remove one",
        first.display(), second.display()
    )]
    Ambiguous {
        id: String,
        channel: String,
        first: PathBuf,
        second: PathBuf,
    },
}

/// Why one sample cannot be used. The text is one line, as it becomes a row of `errors.csv` and
/// part of responses.
#[derive(Debug, Error)]
#[error("sample `{id}`: {}{kind}", if file.is_empty() { String::new() } else { format!("{file}: ") })]
pub struct SampleError {
    pub id: String,
    /// The faulty file, or the expected name of a missing one; empty if there is neither.
    pub file: String,
    pub kind: SampleErrorKind,
}

/// What is wrong with a file of a sample. Each text is one line.
#[derive(Debug, Error)]
pub enum SampleErrorKind {
    /// A required channel has no file.
    #[error("there is no file for channel {channel}")]
    MissingChannel { channel: String },
    #[error("cannot be read: {0}")]
    Io(io::Error),
    /// The source of all files failed; the sample is not at fault.
    #[error("{0}")]
    Unavailable(io::Error),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(
        "is {}×{} pixels, but {other} is {}×{}; all channels of a sample must have the same size",
        size.0, size.1, other_size.0, other_size.1
    )]
    SizesDiffer {
        /// Width and height of this file.
        size: (u32, u32),
        /// First file of the sample.
        other: String,
        /// Width and height of the first file.
        other_size: (u32, u32),
    },
    /// A pixel cache or a feature file is damaged.
    #[error("{0}")]
    Cache(String),
    /// The image has changed since it was first read.
    #[error(
        "is {}×{} pixels now and was {}×{} when it was first read; restore the file, or start a \
         new run",
        is.0, is.1, was.0, was.1
    )]
    Changed {
        /// Width and height when it was first read.
        was: (u32, u32),
        /// Current width and height.
        is: (u32, u32),
    },
}

impl From<io::Error> for SampleErrorKind {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

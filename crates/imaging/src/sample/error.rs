//! Why a folder has no samples, or a sample cannot be read.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::super::DecodeError;
use super::IMAGE_EXTENSIONS;

/// Why a folder yielded no samples.
#[derive(Debug, Error)]
pub enum FindError {
    /// The folder cannot be listed.
    #[error("cannot list the image folder {}: {source}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The path is not a folder.
    #[error(
        "{} is not a folder; give the folder that holds the image files, or a manifest (.csv or \
         .parquet)", .0.display()
    )]
    NotAFolder(PathBuf),
    /// The id in a name could not be written anywhere.
    #[error("the name of {} is not UTF-8, so that its id cannot be written; rename it", .0.display())]
    NotText(PathBuf),
    /// No file has a fitting name.
    #[error(
        "no image files in {}: looked for <Id>_<{channels}>.<{}> and for <Id>.tif with several \
         channels, found {seen}; --pattern reads other names",
        path.display(), IMAGE_EXTENSIONS.join("|")
    )]
    Empty {
        /// The folder.
        path: PathBuf,
        /// The channels that were looked for, joined by `|`.
        channels: String,
        /// What the folder holds instead.
        seen: String,
    },
    /// Channels were chosen of TIFF files, and there are none.
    #[error(
        "no TIFF files in {}, of which --channel chooses channels, among {count} entries; files of \
         one channel each need a --pattern",
        path.display()
    )]
    NoTiff {
        /// The folder.
        path: PathBuf,
        /// Entries that it holds.
        count: usize,
    },
    /// Two files claim to be one channel of one sample.
    #[error(
        "sample `{id}` has two files for channel {channel}: {} and {}; remove one",
        first.display(), second.display()
    )]
    Ambiguous {
        /// The sample.
        id: String,
        /// The channel.
        channel: String,
        /// The one file.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
    },
}

/// Why one sample cannot be used.
#[derive(Debug, Error)]
#[error("sample `{id}`: {}{kind}", if file.is_empty() { String::new() } else { format!("{file}: ") })]
pub struct SampleError {
    /// The sample.
    pub id: String,
    /// The file that is at fault, or the name that was looked for; empty where there is neither.
    pub file: String,
    /// What is wrong with it.
    pub kind: SampleErrorKind,
}

/// What is wrong with a sample's file.
#[derive(Debug, Error)]
pub enum SampleErrorKind {
    /// There is no file for a wanted channel.
    #[error("there is no file for channel {channel}")]
    MissingChannel {
        /// The channel.
        channel: String,
    },
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// No file at all can be read any more; the sample is not at fault.
    #[error("{0}")]
    Unavailable(io::Error),
    /// The file is not an image that can be used.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The channels differ in size.
    #[error(
        "is {}×{} pixels, but {other} is {}×{}; the channels of a sample must agree",
        size.0, size.1, other_size.0, other_size.1
    )]
    SizesDiffer {
        /// Width and height of the file at fault.
        size: (u32, u32),
        /// The sample's first file.
        other: String,
        /// Width and height of the sample's first file.
        other_size: (u32, u32),
    },
    /// The sample cannot be had from a pixel cache.
    #[error("{0}")]
    Cache(String),
    /// The image has another size than when it was read before.
    #[error(
        "is {}×{} pixels now and was {}×{} when it was first read; restore the file, or start a \
         new run on the images as they are",
        is.0, is.1, was.0, was.1
    )]
    Changed {
        /// Width and height at first.
        was: (u32, u32),
        /// Width and height now.
        is: (u32, u32),
    },
}

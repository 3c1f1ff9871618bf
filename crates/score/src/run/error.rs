//! Why a run of scoring failed.

use std::io;
use std::path::PathBuf;

use super::scheduler::ShardError;
use crate::output::OutputError;
use crate::staging::{StagingError, StoreImagesError};
use crate::stream::StreamError;
use crate::{EngineError, PartsError, ResultManifestError, ScoreError};
use rgby_data::ImagesError;
use rgby_store::{StoreError, Url};

/// Why a run of scoring failed.
#[derive(Debug, thiserror::Error)]
pub enum ScoreRunError {
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error(transparent)]
    OutputFile(#[from] OutputFileError),
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// The description of a model cannot be read.
    #[error("--spec {}: {reason}", .path.display())]
    Description { path: PathBuf, reason: String },
    /// The engine or a model cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Images(#[from] ImagesError),
    #[error(transparent)]
    StoreImages(#[from] StoreImagesError),
    /// A store supports only the default layout of images.
    #[error(
        "--images {0}: in a store, samples are <Id>_<stain> files, or <Id>.ome.tif files with all \
         stains, in one folder\n\
         hint: leave out --pattern and --channel, or copy the files to this machine"
    )]
    Layout(Url),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The list of ids cannot be read, or a result cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Parts(#[from] PartsError),
    #[error(transparent)]
    Manifest(#[from] ResultManifestError),
    /// The finished result of another run would be overwritten.
    #[error(
        "{} is a finished result{shard} of another run: {differences}\n\
         hint: choose another output file, or leave out --resume to overwrite it",
        .path.display()
    )]
    Finished {
        path: PathBuf,
        /// ` (shard 0/2)`, or nothing.
        shard: String,
        differences: String,
    },
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// The run failed, and what it scored before is kept.
    #[error(
        "{done} of {samples} samples are kept beside {}\n\
         hint: fix the cause, then resume with --resume",
        .out.display()
    )]
    Kept {
        done: usize,
        samples: usize,
        out: PathBuf,
        #[source]
        cause: ScoreError,
    },
    /// The worker's streams cannot be read or written.
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the thread that reads stdin ended unexpectedly; this is a bug, please report it")]
    ReaderGone,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputFileError {
    #[error("{what} {} is a folder\nhint: name a file in it", .file.display())]
    IsFolder { what: &'static str, file: PathBuf },
    #[error("{what} {} is not a regular file\nhint: name a regular file", .file.display())]
    NotRegular { what: &'static str, file: PathBuf },
    #[error("{what} {}: there is no folder {}\nhint: create it first", .file.display(), .folder.display())]
    NoFolder {
        what: &'static str,
        file: PathBuf,
        folder: PathBuf,
    },
    #[error("{what} {} cannot be written: {cause}", .file.display())]
    Unwritable {
        what: &'static str,
        file: PathBuf,
        cause: io::Error,
    },
    #[error("{what} {} is also the path of another result\nhint: choose another name", .file.display())]
    Duplicate { what: &'static str, file: PathBuf },
    #[error("`{}` is not a valid path: {cause}", .file.display())]
    InvalidPath { file: PathBuf, cause: io::Error },
}

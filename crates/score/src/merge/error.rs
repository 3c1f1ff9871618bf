//! Why results cannot be merged.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use super::super::output::OutputError;
use super::super::{OutputFileError, ResultManifestError, Shard, StagedFile, StagingError};

/// Why results cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("there is nothing to merge\nhint: name the result files of all shards")]
    NoParts,
    #[error(transparent)]
    Staging(#[from] StagingError),
    #[error(transparent)]
    OutputFile(#[from] OutputFileError),
    /// An output would overwrite a part.
    #[error("{what} {} would overwrite a part\nhint: choose another name for --out", .file.display())]
    Overwrites { what: &'static str, file: PathBuf },
    /// The list of ids cannot be read, or the list of failed samples cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A file is not a result.
    #[error("{}: {reason}", .path.display())]
    Part { path: PathBuf, reason: String },
    #[error("--out {} is one of the parts\nhint: choose another name", .0.display())]
    Out(PathBuf),
    #[error(
        "{} and --out {} must both be CSV or both be Parquet (a name that ends in .parquet)",
        .part.display(), .out.display()
    )]
    Format { part: PathBuf, out: PathBuf },
    #[error("{} and {} are one file\nhint: name it once", .0.display(), .1.display())]
    SameFile(PathBuf, PathBuf),
    #[error(transparent)]
    Manifest(#[from] ResultManifestError),
    /// A part contradicts its manifest.
    #[error(
        "{}: {reason}; the file or its manifest was damaged or changed\nhint: score this part again",
        .path.display()
    )]
    Changed { path: PathBuf, reason: String },
    #[error(
        "{} has a manifest and {} has none\nhint: move each FILE.manifest.json with its FILE",
        .with.display(), .without.display()
    )]
    SomeManifests { with: PathBuf, without: PathBuf },
    /// Two parts belong to different runs.
    #[error(
        "{} and {} do not belong together: {what}\nhint: merge only parts of one run",
        .first.display(), .second.display()
    )]
    Differ {
        first: PathBuf,
        second: PathBuf,
        what: String,
    },
    #[error("{} and {} are both shard {shard}\nhint: leave out one", .first.display(), .second.display())]
    SameShard {
        shard: Shard,
        first: PathBuf,
        second: PathBuf,
    },
    #[error(
        "{missing} of {count} shards {}: {}\nhint: score them, or name their files, too",
        if *.missing == 1 { "is missing" } else { "are missing" },
        some(.first.iter().map(|index| format!("{index}/{count}")))
    )]
    MissingShards {
        /// Number of shards.
        count: u32,
        /// Number of missing shards.
        missing: u32,
        /// Indices of the first missing shards.
        first: Vec<u32>,
    },
    /// The images changed between the runs of two shards.
    #[error(
        "{} was scored from a list of {} samples, {} from a list of {}{}: the images changed between \
         these runs, so samples may be missing\nhint: name the expected samples with --ids, or score all \
         shards again, preferably with --ids",
        .first.0.display(), .first.1, .second.0.display(), .second.1,
        if .first.1 == .second.1 { " other samples" } else { "" }
    )]
    Listing {
        /// A part, and the number of samples of all shards in its run.
        first: (PathBuf, usize),
        second: (PathBuf, usize),
    },
    #[error("the id `{id}` occurs twice: in {} and in {}", .first.display(), .second.display())]
    DuplicateId {
        id: String,
        first: PathBuf,
        second: PathBuf,
    },
    #[error(
        "--ids and the parts differ: {} not in any part ({}), {} not in --ids ({})",
        ids(.missing), some(.missing), ids(.extra), some(.extra)
    )]
    Ids {
        /// Ids that are in no part.
        missing: Vec<String>,
        /// Ids that are not in the list.
        extra: Vec<String>,
    },
    /// The result cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

impl MergeError {
    /// Creates the error for a file that is not a result.
    pub(super) fn part(file: &StagedFile, reason: impl Display) -> Self {
        Self::Part {
            path: file.name().to_owned(),
            reason: reason.to_string(),
        }
    }
}

fn ids(list: &[String]) -> String {
    match list.len() {
        1 => "1 id is".into(),
        count => format!("{count} ids are"),
    }
}

/// Maximum number of items of a list in a message.
pub(super) const SHOWN: usize = 5;

/// Joins the first items of a list.
fn some(list: impl IntoIterator<Item: Display>) -> String {
    let mut items = list.into_iter();
    let mut shown: Vec<String> = items.by_ref().take(SHOWN).map(|i| i.to_string()).collect();
    if items.next().is_some() {
        shown.push("…".into());
    }
    if shown.is_empty() {
        "none".into()
    } else {
        shown.join(", ")
    }
}

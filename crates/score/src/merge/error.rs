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
    /// A file cannot be read as a result.
    #[error("{}: {reason}", .path.display())]
    Part {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The result would overwrite a part.
    #[error("--out {} is one of the parts; give the result a name of its own", .0.display())]
    Out(PathBuf),
    /// One file is CSV and another is Parquet.
    #[error(
        "{} and --out {} must both be CSV or both be Parquet (a name that ends in .parquet)",
        .part.display(), .out.display()
    )]
    Format {
        /// The part.
        part: PathBuf,
        /// The result.
        out: PathBuf,
    },
    /// A part is named twice.
    #[error("{} and {} are one file; name it once", .0.display(), .1.display())]
    SameFile(PathBuf, PathBuf),
    /// A manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ResultManifestError),
    /// A part is not what its manifest says.
    #[error(
        "{}: {reason}; the file or its manifest was damaged or changed: score this part again",
        .path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What contradicts its manifest.
        reason: String,
    },
    /// One part has a manifest and another has none.
    #[error(
        "{} has a manifest and {} has none; move each FILE.manifest.json with its FILE",
        .with.display(), .without.display()
    )]
    SomeManifests {
        /// A part that has one.
        with: PathBuf,
        /// A part that has none.
        without: PathBuf,
    },
    /// Two parts are not of one run.
    #[error(
        "{} and {} do not belong together: {what}; merge parts of one run only",
        .first.display(), .second.display()
    )]
    Differ {
        /// A part.
        first: PathBuf,
        /// Another one.
        second: PathBuf,
        /// How they differ.
        what: String,
    },
    /// A shard is there twice.
    #[error("{} and {} are both shard {shard}; leave out one", .first.display(), .second.display())]
    SameShard {
        /// The shard.
        shard: Shard,
        /// A part.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
    /// Shards are not there.
    #[error(
        "{missing} of {count} shards {}: {}; score them, or name their files too",
        if *.missing == 1 { "is missing" } else { "are missing" },
        some(.first.iter().map(|index| format!("{index}/{count}")))
    )]
    MissingShards {
        /// How many there must be.
        count: u32,
        /// How many of them are not there.
        missing: u32,
        /// The first of those.
        first: Vec<u32>,
    },
    /// The listing changed between two shards' runs.
    #[error(
        "{} is a share of {} samples and {} one of {}{}: the images changed between these runs, so \
         that samples may be missing; name those that there must be with --ids, or score again, \
         best with --ids",
        .first.0.display(), .first.1, .second.0.display(), .second.1,
        if .first.1 == .second.1 { " others" } else { "" }
    )]
    Listing {
        /// A part, and how many samples its run saw.
        first: (PathBuf, usize),
        /// Another one.
        second: (PathBuf, usize),
    },
    /// An id has two rows.
    #[error("the id `{id}` is there twice: in {} and in {}", .first.display(), .second.display())]
    Twice {
        /// The id.
        id: String,
        /// A part that has it.
        first: PathBuf,
        /// A part that has it too.
        second: PathBuf,
    },
    /// The parts and the list of ids differ.
    #[error(
        "--ids and the parts differ: {} not in any part ({}), {} not in --ids ({})",
        ids(.missing), some(.missing), ids(.extra), some(.extra)
    )]
    Ids {
        /// Ids that no part has.
        missing: Vec<String>,
        /// Ids that were not asked for.
        extra: Vec<String>,
    },
    /// The result cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

impl MergeError {
    /// That `path` cannot be read as a result.
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

/// How many items of a list are shown.
pub(super) const SHOWN: usize = 5;

/// The first few of a list.
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

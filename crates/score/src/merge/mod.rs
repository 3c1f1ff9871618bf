//! Joins results of several runs, such as the shards of one, into what a single run would have
//! written, after proving that they belong together and that nothing is missing or there twice.
//!
//! Ids are held in memory, rows are not: the result is written in pieces of about 64 MiB, for each
//! of which a part is opened once.

mod agree;
mod error;
mod order;
mod part;
mod rows;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use self::error::MergeError;
use self::order::PartPosition;
use self::part::MergePart;
use super::result_manifest::manifest_path;
use super::{Failure, ResultManifest, RunKey, hash_of_ids, output};

/// What was merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged {
    /// Parts of which there were rows or a manifest.
    pub parts: usize,
    /// Rows of the result.
    pub rows: usize,
    /// Samples among them that failed.
    pub failed: usize,
    /// Whether manifests proved that all parts are of one model, and how many there must be.
    pub proved: bool,
    /// Where the failed samples are listed.
    pub errors: PathBuf,
}

/// Merges the results `parts` into the file `out`, in the order of `ids`, else by id.
///
/// All parts are CSV or all are Parquet, as their names and that of `out` say. Where they have
/// manifests, these must agree in everything that results depend on, the files must be as they say,
/// and of shards all must be there. Failed samples are listed beside `out`, and a manifest as of an
/// unsharded run is written. Lists of failed samples and manifests among `parts` are passed over:
/// they are found by the parts' names.
///
/// # Errors
///
/// Something does not fit together, is missing or there twice, or a file cannot be read or written;
/// `out` is then as it was.
pub fn merge(parts: &[PathBuf], out: &Path, ids: Option<&[String]>) -> Result<Merged, MergeError> {
    let paths = select(parts, out)?;
    let opened = paths.into_iter().map(MergePart::open);
    let parts = opened.collect::<Result<Vec<_>, _>>()?;
    let proved = agree::check(&parts, ids.is_some())?;
    let order = order::find(&parts, ids)?;
    let failures = failures(&parts, &order)?;
    let errors = output::errors_path(out);
    output::write_errors(&errors, &failures).map_err(io::Error::other)?;
    rows::write(out, &parts, &order)?;
    let merged = Merged {
        parts: parts.len(),
        rows: order.len(),
        failed: failures.len(),
        proved,
        errors,
    };
    write_manifest(out, &parts, &order, failures)?;
    Ok(merged)
}

/// The parts among the paths, none of them twice or the result itself.
fn select(paths: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>, MergeError> {
    let lists: Vec<PathBuf> = paths.iter().map(|p| output::errors_path(p)).collect();
    let manifests: Vec<PathBuf> = paths.iter().map(|p| manifest_path(p)).collect();
    let result = fs::canonicalize(out).ok();
    let (mut parts, mut seen) = (Vec::new(), HashMap::new());
    for path in paths {
        if lists.contains(path) || manifests.contains(path) {
            continue;
        }
        let unreadable = |error: io::Error| MergeError::part(path, error);
        let canonical = fs::canonicalize(path).map_err(unreadable)?;
        if result.as_ref() == Some(&canonical) {
            return Err(MergeError::Out(path.clone()));
        }
        if output::is_parquet(path) != output::is_parquet(out) {
            return Err(MergeError::Format {
                part: path.clone(),
                out: out.to_owned(),
            });
        }
        if let Some(first) = seen.insert(canonical, path.clone()) {
            return Err(MergeError::SameFile(first, path.clone()));
        }
        parts.push(path.clone());
    }
    if parts.is_empty() {
        return Err(MergeError::Nothing);
    }
    Ok(parts)
}

/// The failures of all parts, in the order of the result.
fn failures(parts: &[MergePart], order: &[PartPosition]) -> Result<Vec<Failure>, MergeError> {
    let mut by_id = HashMap::new();
    for part in parts {
        for failure in part.failures()? {
            by_id.insert(failure.id.clone(), (failure, part));
        }
    }
    let ids = order.iter().map(|place| place.id(parts));
    let found = ids.filter_map(|id| by_id.remove(id));
    let failures = found.map(|(failure, _)| failure).collect();
    match by_id.into_iter().next() {
        Some((id, (_, part))) => {
            let reason = format!("lists `{id}` as failed, but has no row of that id");
            Err(MergeError::part(&part.path, reason))
        }
        None => Ok(failures),
    }
}

/// Writes the manifest that a single run would have written; removes an old one where nothing is
/// known of the parts.
fn write_manifest(
    out: &Path,
    parts: &[MergePart],
    order: &[PartPosition],
    failures: Vec<Failure>,
) -> io::Result<()> {
    let Some(first) = &parts[0].manifest else {
        return match fs::remove_file(manifest_path(out)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    };
    let run = RunKey {
        samples: hash_of_ids(order.iter().map(|place| place.id(parts))),
        listed: order.len(),
        shard: None,
        count: order.len(),
        ..first.run.clone()
    };
    let mut manifest = ResultManifest::of(out, first.kind, run)?;
    manifest.decision.clone_from(&first.decision);
    manifest.failures = failures;
    manifest.write(out)
}

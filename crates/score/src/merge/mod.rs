//! Merges results of several runs, such as the shards of one, into the result of a single run,
//! after proving that they belong together and that no sample is missing or duplicate.
//!
//! Ids are held in memory, rows are not: the result is written in pieces of about 64 MiB, and each
//! part is opened once per piece.

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
use super::run::output_files::{ERRORS, check_output};
use super::{
    Failure, ResultManifest, RunKey, ScoreObserver, StagedFile, StagedFiles, hash_of_ids, output,
};
use rgby_store::StoreOptions;

/// Which results to merge. Paths may be URLs.
#[derive(Debug, Clone)]
pub struct MergeConfig {
    /// Results of [`run`](super::run()), all CSV or all Parquet.
    pub parts: Vec<PathBuf>,
    /// Output file, in the format of the parts.
    pub out: PathBuf,
    /// CSV whose first column lists the expected ids in order; `None` for all ids, sorted.
    pub ids: Option<PathBuf>,
    pub store: StoreOptions,
}

/// Result of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeReport {
    /// Number of parts that were merged.
    pub parts: usize,
    /// Rows of the result.
    pub rows: usize,
    /// Samples among them that failed.
    pub failed: usize,
    /// Whether manifests proved that all parts are of one model and that no shard is missing.
    pub proved: bool,
    /// Path or URL of the result.
    pub out: PathBuf,
    /// Path or URL of the list of failed samples; it exists only if there are any.
    pub errors: PathBuf,
}

/// Merges results into one file, in the order of the expected ids, else by id.
///
/// Manifests, where they exist, must agree in everything that results depend on and match the
/// files, and no shard may be missing. Failed samples are listed beside the result, and a manifest
/// as of an unsharded run is written. Lists of failed samples and manifests among the parts are
/// ignored: they are found by the names of the parts.
///
/// # Errors
///
/// Parts do not fit together, are missing or duplicate, or a file cannot be read or written; the
/// output file is then unchanged.
pub fn merge(
    config: &MergeConfig,
    observer: &dyn ScoreObserver,
) -> Result<MergeReport, MergeError> {
    let mut staged = StagedFiles::new(config.store.clone());
    let out = staged.output("--out", &config.out)?;
    let (errors, manifest) = (out.derived(output::errors_path), out.derived(manifest_path));
    for (what, file) in [
        ("--out", &out),
        (ERRORS, &errors),
        ("the manifest", &manifest),
    ] {
        check_output(what, file)?;
        if *file != out && config.parts.iter().any(|part| part == file.name()) {
            let file = file.name().to_owned();
            return Err(MergeError::Overwrites { what, file });
        }
    }
    let ids = config.ids.as_ref();
    let ids = ids.map(|path| staged.input("--ids", path)).transpose()?;
    let ids = ids.as_ref().map(output::read_staged_ids).transpose()?;
    let files = config.parts.iter();
    let files = files.map(|path| staged.input("PART", path));
    let files = select(&files.collect::<Result<Vec<_>, _>>()?, &out)?;
    for file in &files {
        staged.fetch_beside(file, manifest_path)?;
        staged.fetch_beside(file, output::errors_path)?;
    }
    let report = merge_files(files, &out, ids.as_deref())?;
    staged.publish(&out, &[&errors, &manifest])?;
    if !report.proved {
        observer.warn(
            "no part has a manifest: it was not checked that they are of one model and that no \
             shard is missing",
        );
    }
    Ok(report)
}

fn merge_files(
    files: Vec<StagedFile>,
    out: &StagedFile,
    ids: Option<&[String]>,
) -> Result<MergeReport, MergeError> {
    let opened = files.into_iter().map(MergePart::open);
    let parts = opened.collect::<Result<Vec<_>, _>>()?;
    let proved = agree::check(&parts, ids.is_some())?;
    let order = order::find(&parts, ids)?;
    let failures = failures(&parts, &order)?;
    let errors = out.derived(output::errors_path);
    output::write_errors(errors.path(), &failures)?;
    rows::write(out.path(), &parts, &order)?;
    let report = MergeReport {
        parts: parts.len(),
        rows: order.len(),
        failed: failures.len(),
        proved,
        out: out.name().to_owned(),
        errors: errors.name().to_owned(),
    };
    write_manifest(out.path(), &parts, &order, failures)?;
    Ok(report)
}

/// Selects the results among the files; none of them may be named twice or be the output.
fn select(files: &[StagedFile], out: &StagedFile) -> Result<Vec<StagedFile>, MergeError> {
    let names = |derive: fn(&Path) -> PathBuf| -> Vec<PathBuf> {
        files.iter().map(|file| derive(file.name())).collect()
    };
    let (lists, manifests) = (names(output::errors_path), names(manifest_path));
    let result = fs::canonicalize(out.path()).ok();
    let (mut parts, mut seen) = (Vec::new(), HashMap::new());
    for file in files {
        let name = file.name().to_owned();
        if lists.contains(&name) || manifests.contains(&name) {
            continue;
        }
        let unreadable = |error: io::Error| MergeError::part(file, error);
        let canonical = fs::canonicalize(file.path()).map_err(unreadable)?;
        if result.as_ref() == Some(&canonical) || name == out.name() {
            return Err(MergeError::Out(name));
        }
        if output::is_parquet(&name) != output::is_parquet(out.name()) {
            return Err(MergeError::Format {
                part: name,
                out: out.name().to_owned(),
            });
        }
        if let Some(first) = seen.insert(canonical, name.clone()) {
            return Err(MergeError::SameFile(first, name));
        }
        parts.push(file.clone());
    }
    if parts.is_empty() {
        return Err(MergeError::NoParts);
    }
    Ok(parts)
}

/// Returns the failures of all parts, in the order of the result.
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
            Err(MergeError::part(&part.file, reason))
        }
        None => Ok(failures),
    }
}

/// Writes the manifest of an unsharded run; removes an old one if the parts have no manifests.
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

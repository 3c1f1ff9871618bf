//! The files that scoring writes and the list of ids that it reads.

mod csv_file;
mod parquet;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use self::csv_file::{read_errors, read_scores};
pub(super) use self::parquet::write_batches;
use super::{Failure, ScoreTable, StagedFile};
use rgby_imaging::Sample;

/// Why a file of ids could not be read, or a result not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A result file could not be written or removed.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// The file of ids is not what it should be.
    #[error("{}: {reason}", .path.display())]
    Ids {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

/// The numbers of the classes whose probability is at least their threshold, ascending.
#[must_use]
pub fn predicted_classes(probabilities: &[f32], thresholds: &[f32]) -> Vec<usize> {
    let pairs = probabilities.iter().zip(thresholds).enumerate();
    pairs
        .filter(|(_, (p, threshold))| p >= threshold)
        .map(|(class, _)| class)
        .collect()
}

/// Results in the samples' order, in pieces that fit into memory.
pub type Tables<'a> = dyn Iterator<Item = io::Result<ScoreTable>> + 'a;

/// Writes the predicted classes, one row a sample in the tables' order; a sample that failed gets
/// an empty prediction.
///
/// CSV: `Id,Predicted`, class numbers separated by single spaces. Parquet: `Id` (string) and
/// `Predicted` (list of int32).
///
/// # Errors
///
/// A table's error, or the file cannot be written; then there is none.
pub fn write_predictions(
    path: &Path,
    tables: &mut Tables,
    thresholds: &[f32],
) -> Result<(), OutputError> {
    if is_parquet(path) {
        parquet::write_predictions(path, tables, thresholds)
    } else {
        csv_file::write_predictions(path, tables, thresholds)
    }
}

/// Writes `Id` and a column of probabilities for each class, one row a sample in the tables'
/// order; a sample that failed has none. The numbers read back to the same float32.
///
/// # Errors
///
/// As [`write_predictions`].
pub fn write_scores(
    path: &Path,
    tables: &mut Tables,
    classes: &[String],
) -> Result<(), OutputError> {
    if is_parquet(path) {
        parquet::write_scores(path, tables, classes)
    } else {
        csv_file::write_scores(path, tables, classes)
    }
}

/// Whether a file's name asks for Parquet; any other is CSV.
pub(super) fn is_parquet(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Columns of the list of failed samples.
pub(super) const ERRORS_HEADER: [&str; 3] = ["Id", "File", "Error"];

/// Where the failures of a run that writes `output` are listed: `FILE.errors.csv` beside
/// `FILE.csv`.
#[must_use]
pub fn errors_path(output: &Path) -> PathBuf {
    let known = |e: &std::ffi::OsStr| ["csv", "parquet"].iter().any(|k| e.eq_ignore_ascii_case(k));
    let stem = if output.extension().is_some_and(known) {
        &output.with_extension("")
    } else {
        output
    };
    beside(stem, ".errors.csv")
}

/// What lies beside the file `output` and has its name, with `suffix` behind it.
///
/// As against [`Path::with_added_extension`], it is never `output` itself, even if that is `..`.
pub(super) fn beside(output: &Path, suffix: &str) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Writes `Id,File,Error`, one row a failure. Without failures, an older file at `path` is
/// removed, so that it cannot be taken for this run's.
///
/// # Errors
///
/// The file cannot be written or removed.
pub fn write_errors(path: &Path, failures: &[Failure]) -> Result<(), OutputError> {
    if failures.is_empty() {
        return match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                let text = format!("cannot remove {}: {e}", path.display());
                Err(io::Error::new(e.kind(), text).into())
            }
            _ => Ok(()),
        };
    }
    csv_file::write(
        path,
        ERRORS_HEADER,
        &mut failures.iter().map(|f| Ok([&f.id, &f.file, &f.error])),
    )
}

/// Reads the first column of a CSV file with a header: the ids to score, in order.
///
/// # Errors
///
/// The file cannot be read, holds no ids, or has an id that is empty or there twice.
pub fn read_ids(path: &Path) -> Result<Vec<String>, OutputError> {
    read_staged_ids(&StagedFile::local(path))
}

/// As [`read_ids`], for a file that may be the local copy of a remote one.
///
/// # Errors
///
/// As [`read_ids`].
pub fn read_staged_ids(file: &StagedFile) -> Result<Vec<String>, OutputError> {
    let fault = |reason: String| OutputError::Ids {
        path: file.name().to_owned(),
        reason,
    };
    let unreadable = |e: csv::Error| fault(format!("cannot be read as CSV: {e}"));
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_path(file.path())
        .map_err(unreadable)?;
    let mut ids = Vec::new();
    let mut seen = HashSet::new();
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        let line = record.position().map_or(0, csv::Position::line);
        let id = record.get(0).unwrap_or_default().trim();
        if id.is_empty() {
            return Err(fault(format!("line {line} has no id in its first column")));
        }
        if !seen.insert(id.to_owned()) {
            return Err(fault(format!(
                "line {line}: the id `{id}` is there a second time"
            )));
        }
        ids.push(id.to_owned());
    }
    if ids.is_empty() {
        let reason = "has no ids; it needs a header line and one id a line, in the first column";
        return Err(fault(reason.into()));
    }
    Ok(ids)
}

/// The samples with these ids, in this order. An id without images yields a sample without
/// files, which scoring lists among the failures.
#[must_use]
pub fn select(samples: Vec<Sample>, ids: &[String]) -> Vec<Sample> {
    let mut by_id: HashMap<String, Sample> = samples
        .into_iter()
        .map(|sample| (sample.id.clone(), sample))
        .collect();
    let missing = |id: &String| Sample {
        id: id.clone(),
        channels: [].into(),
        files: Vec::new(),
        picks: [].into(),
    };
    ids.iter()
        .map(|id| by_id.remove(id).unwrap_or_else(|| missing(id)))
        .collect()
}

#[cfg(test)]
mod tests;

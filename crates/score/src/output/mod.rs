//! Result files of scoring, and the list of ids to score.

mod csv_file;
mod parquet;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use self::csv_file::{read_errors, read_scores};
pub(super) use self::parquet::write_batches;
use super::{Failure, ScoreTable, StagedFile, beside};
use rgby_imaging::Sample;

/// A list of ids cannot be read, or a result cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error(transparent)]
    Write(#[from] io::Error),
    /// The list of ids is invalid.
    #[error("{}: {reason}", .path.display())]
    Ids { path: PathBuf, reason: String },
}

/// Returns the numbers of the classes whose probability is at least their threshold, ascending.
#[must_use]
pub fn predicted_classes(probabilities: &[f32], thresholds: &[f32]) -> Vec<usize> {
    let pairs = probabilities.iter().zip(thresholds).enumerate();
    pairs
        .filter(|(_, (p, threshold))| p >= threshold)
        .map(|(class, _)| class)
        .collect()
}

/// Results in the order of the samples, in tables that fit into memory.
pub type Tables<'a> = dyn Iterator<Item = io::Result<ScoreTable>> + 'a;

/// Writes the predicted classes, one row per sample in the order of the tables; a failed sample has
/// an empty prediction.
///
/// CSV: `Id,Predicted`, class numbers separated by single spaces. Parquet: `Id` (string) and
/// `Predicted` (list of int32).
///
/// # Errors
///
/// The error of a table, or the file cannot be written. Then no file exists.
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

/// Writes `Id` and one column of probabilities per class, one row per sample in the order of the
/// tables; a failed sample has empty columns. The numbers parse back to the same float32.
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

/// Whether the name of a file selects Parquet; all other names select CSV.
pub(super) fn is_parquet(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("parquet"))
}

/// Columns of the list of failed samples.
pub(super) const ERRORS_HEADER: [&str; 3] = ["Id", "File", "Error"];

/// Returns the path of the list of failed samples of a run that writes `output`: `FILE.errors.csv`
/// beside `FILE.csv`.
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

/// Writes `Id,File,Error`, one row per failure. Without failures, an older file at `path` is
/// removed, so that it is not mistaken for the list of this run.
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
/// The file cannot be read, contains no ids, or contains an empty or duplicate id.
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
                "line {line}: the id `{id}` occurs a second time"
            )));
        }
        ids.push(id.to_owned());
    }
    if ids.is_empty() {
        let reason = "has no ids; it needs a header line, and one id per line in the first column";
        return Err(fault(reason.into()));
    }
    Ok(ids)
}

/// Selects the samples with these ids, in this order. An id without images becomes a sample without
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

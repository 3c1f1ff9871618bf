//! Split files: CSV `Id,Fold` with `train` or `valid` for each sample.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use thiserror::Error;

use super::SplitIndices;
use crate::Dataset;
use rgby_common::atomic_file;

const TRAIN: &str = "train";
const VALID: &str = "valid";

/// An invalid split file.
#[derive(Debug, Error)]
#[error("split file {}: {fault}", path.display())]
pub struct SplitError {
    pub path: PathBuf,
    pub fault: SplitFault,
}

/// Why a split file is invalid.
#[derive(Debug, Error)]
pub enum SplitFault {
    /// An unreadable file, or a line with too few or too many fields.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    #[error("has no column `{wanted}`\nhint: write a header `Id,Fold` and one line per sample")]
    MissingColumn { wanted: &'static str },
    /// A sample that is not in the data set.
    #[error(
        "line {line}: the labels file has no sample `{id}`\nhint: remove the line, or use the \
         labels file of the split"
    )]
    UnknownId { line: u64, id: String },
    /// A duplicate id.
    #[error("line {line}: the sample `{id}` was already on line {first}\nhint: keep one of them")]
    DuplicateId { line: u64, id: String, first: u64 },
    #[error("line {line}: `{text}` is not a part of a split\nhint: write `train` or `valid`")]
    NotAFold { line: u64, text: String },
    /// Samples of the data set that are not in the file.
    #[error(
        "has no line for {count} of the {total} samples of the labels file: {examples}\nhint: add \
         them, or remove them from the labels file"
    )]
    MissingIds {
        count: usize,
        total: usize,
        examples: String,
    },
}

/// Reads the training and validation indices of `dataset`, each ascending.
pub(super) fn read_split(path: &Path, dataset: &Dataset) -> Result<SplitIndices, SplitError> {
    read(path, dataset).map_err(|fault| SplitError {
        path: path.into(),
        fault,
    })
}

fn read(path: &Path, dataset: &Dataset) -> Result<SplitIndices, SplitFault> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)?;
    let headers = reader.headers()?.clone();
    let (id_column, fold_column) = (column(&headers, "Id")?, column(&headers, "Fold")?);
    let ids = dataset.samples.iter().map(|sample| sample.id.as_str());
    let numbers: HashMap<_, _> = ids.zip(0..).collect();
    // For each sample its line, and whether it is a validation sample.
    let mut assigned: Vec<Option<(u64, bool)>> = vec![None; dataset.len()];
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let id = record.get(id_column).unwrap_or_default();
        let validates = match record.get(fold_column).unwrap_or_default() {
            TRAIN => false,
            VALID => true,
            other => {
                let text = other.to_owned();
                return Err(SplitFault::NotAFold { line, text });
            }
        };
        let id_owned = || id.to_owned();
        let number: &usize = numbers.get(id).ok_or_else(|| SplitFault::UnknownId {
            line,
            id: id_owned(),
        })?;
        if let Some((first, _)) = assigned[*number].replace((line, validates)) {
            let id = id_owned();
            return Err(SplitFault::DuplicateId { line, id, first });
        }
    }
    check_complete(dataset, &assigned)?;
    let validates = |sample: usize| assigned[sample].is_some_and(|(_, validates)| validates);
    Ok((0..dataset.len()).partition(|&sample| !validates(sample)))
}

fn column(headers: &StringRecord, wanted: &'static str) -> Result<usize, SplitFault> {
    let found = headers.iter().position(|name| name == wanted);
    found.ok_or(SplitFault::MissingColumn { wanted })
}

fn check_complete(dataset: &Dataset, assigned: &[Option<(u64, bool)>]) -> Result<(), SplitFault> {
    let pairs = dataset.samples.iter().zip(assigned);
    let missing: Vec<_> = pairs
        .filter(|(_, line)| line.is_none())
        .map(|(sample, _)| format!("`{}`", sample.id))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let more = if missing.len() > 5 { ", …" } else { "" };
    Err(SplitFault::MissingIds {
        count: missing.len(),
        total: dataset.len(),
        examples: missing[..missing.len().min(5)].join(", ") + more,
    })
}

/// Writes a split atomically as CSV for `file:PATH`, in the order of the data set. Samples in
/// neither part are left out.
///
/// # Errors
///
/// The file system's error, with the path in its message.
///
/// # Panics
///
/// If a part has an index beyond `dataset`.
pub fn write_split(
    path: &Path,
    dataset: &Dataset,
    train: &[usize],
    valid: &[usize],
) -> io::Result<()> {
    let mut parts = vec![None; dataset.len()];
    for (part, samples) in [(TRAIN, train), (VALID, valid)] {
        for &sample in samples {
            parts[sample] = Some(part);
        }
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["Id", "Fold"])?;
    for (sample, part) in dataset.samples.iter().zip(parts) {
        if let Some(part) = part {
            writer.write_record([&sample.id, part])?;
        }
    }
    let bytes = writer
        .into_inner()
        .map_err(csv::IntoInnerError::into_error)?;
    atomic_file::write_atomic(path, &bytes)
}

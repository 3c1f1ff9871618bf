//! A split in a file: CSV `Id,Fold` with `train` or `valid` for each sample.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use thiserror::Error;

use super::SplitIndices;
use crate::Dataset;
use rgby_common::atomic_file;

/// Text of the two parts.
const TRAIN: &str = "train";
const VALID: &str = "valid";

/// What is wrong with a split file, and in which one.
#[derive(Debug, Error)]
#[error("split file {}: {fault}", path.display())]
pub struct SplitError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: SplitFault,
}

/// One way for a split file to be wrong.
#[derive(Debug, Error)]
pub enum SplitFault {
    /// The file cannot be read, or a line has too few or too many fields.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// A column is not there.
    #[error("has no column `{wanted}`; give a header `Id,Fold` and one line a sample")]
    MissingColumn {
        /// The column.
        wanted: &'static str,
    },
    /// A sample that the data set does not have.
    #[error(
        "line {line}: the labels file has no sample `{id}`; take the line out, or use the labels \
         that the split was made for"
    )]
    UnknownId {
        /// Line in the file, from 1.
        line: u64,
        /// The sample.
        id: String,
    },
    /// A sample on two lines.
    #[error("line {line}: the sample `{id}` was already on line {first}; keep one of them")]
    DuplicateId {
        /// Line in the file, from 1.
        line: u64,
        /// The sample.
        id: String,
        /// The line that had it first.
        first: u64,
    },
    /// Neither `train` nor `valid`.
    #[error("line {line}: `{text}` is no part of a split; write `train` or `valid`")]
    NotAFold {
        /// Line in the file, from 1.
        line: u64,
        /// What stands there.
        text: String,
    },
    /// Samples that the file does not name.
    #[error(
        "has no line for {count} of the {total} samples of the labels file: {examples}; add \
         them, or take them out of the labels file"
    )]
    MissingIds {
        /// How many samples have no line.
        count: usize,
        /// How many samples there are.
        total: usize,
        /// The first five.
        examples: String,
    },
}

/// Reads which samples of `dataset` train and which validate, each ascending.
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
    // For each sample the line that names it, and whether it validates.
    let mut named: Vec<Option<(u64, bool)>> = vec![None; dataset.len()];
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
        if let Some((first, _)) = named[*number].replace((line, validates)) {
            let id = id_owned();
            return Err(SplitFault::DuplicateId { line, id, first });
        }
    }
    check_complete(dataset, &named)?;
    let validates = |sample: usize| named[sample].is_some_and(|(_, validates)| validates);
    Ok((0..dataset.len()).partition(|&sample| !validates(sample)))
}

fn column(headers: &StringRecord, wanted: &'static str) -> Result<usize, SplitFault> {
    let found = headers.iter().position(|name| name == wanted);
    found.ok_or(SplitFault::MissingColumn { wanted })
}

fn check_complete(dataset: &Dataset, named: &[Option<(u64, bool)>]) -> Result<(), SplitFault> {
    let pairs = dataset.samples.iter().zip(named);
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

/// Writes a split as the CSV that `file:PATH` reads, in the order of the data set, as one atomic
/// step. Samples that are in neither part are left out.
///
/// # Errors
///
/// The file system's error, with the path in its message.
///
/// # Panics
///
/// If a part names a sample that `dataset` does not have.
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

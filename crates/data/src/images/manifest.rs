//! Manifests: tables with an id and one file per channel in each row.

mod csv_rows;
mod parquet_rows;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use rgby_imaging::{ChannelSelector, Sample, is_tiff_name};

const ID_COLUMN: &str = "Id";
/// Limit of a manifest in bytes.
const MAX_BYTES: u64 = 512 << 20;
/// Limit of samples: a small Parquet file can repeat a row millions of times.
const MAX_SAMPLES: usize = 1 << 22;
/// Limit of a cell in bytes. No file system has longer paths.
const MAX_CELL: usize = 4096;

/// An invalid manifest.
#[derive(Debug, Error)]
#[error("manifest {}: {fault}", path.display())]
pub struct ImageManifestError {
    pub path: PathBuf,
    pub fault: ImageManifestFault,
}

/// Why a manifest is invalid.
#[derive(Debug, Error)]
pub enum ImageManifestFault {
    #[error("cannot be read: {0}")]
    Io(io::Error),
    #[error("is not a file\nhint: name a CSV or Parquet file, or a folder of images")]
    NotAFile,
    #[error("has more than {MAX_BYTES} bytes\nhint: split it")]
    TooLarge,
    #[error("has more than {MAX_SAMPLES} samples\nhint: split it")]
    TooManySamples,
    /// Invalid CSV, such as a line with too few or too many fields.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    #[error("cannot be read as Parquet: {0}")]
    Parquet(parquet::errors::ParquetError),
    /// Damaged rows of a Parquet file.
    #[error("cannot be read as Parquet: {0}")]
    ManifestRows(arrow_schema::ArrowError),
    /// An inconsistent Parquet file.
    #[error("cannot be read as Parquet: the file is damaged\nhint: write it again")]
    Damaged,
    #[error("line {line} is not UTF-8\nhint: save the file as UTF-8 CSV")]
    NotUtf8 {
        /// Line number from 1.
        line: u64,
    },
    #[error(
        "has no column `{wanted}`; its columns are {found}\nhint: a manifest needs `Id` and one \
         column per stain; use --channel STAIN=COLUMN for other names"
    )]
    MissingColumn { wanted: String, found: String },
    /// A required column exists twice.
    #[error("has two columns `{0}`\nhint: rename one")]
    ColumnTwice(String),
    /// A Parquet column of another type than string.
    #[error("column `{column}` has the type {kind}\nhint: write it as strings")]
    NotText { column: String, kind: String },
    #[error(
        "has no samples\nhint: write a header with `Id` and the stains, and one line per sample"
    )]
    Empty,
    /// A row without an id. The text is one line, as `check-data` lists it.
    #[error("{0}: the id is empty")]
    EmptyId(RowPosition),
    /// A duplicate id. The text is one line, as `check-data` lists it.
    #[error("{row}: the id `{id}` was already in {first}; keep one of them")]
    DuplicateId {
        row: RowPosition,
        id: String,
        /// The row that had it first.
        first: RowPosition,
    },
    /// A cell that is too long for a path.
    #[error("{row}: column `{column}` has more than {MAX_CELL} bytes")]
    TooLong { row: RowPosition, column: String },
}

/// Position of a row, for messages: `line 3` or `row 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowPosition {
    /// `line` in CSV, `row` in Parquet.
    unit: &'static str,
    /// Number from 1.
    number: u64,
}

impl fmt::Display for RowPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.unit, self.number)
    }
}

/// File format of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ManifestFormat {
    Csv,
    Parquet,
}

impl ManifestFormat {
    /// Returns the format by the file extension; `None` for other files and for folders.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" if !path.is_dir() => Some(Self::Csv),
            "parquet" if !path.is_dir() => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Reads the samples of a manifest, sorted by id. `wanted` holds the column of each of `channels`.
/// Paths are relative to the manifest's folder. An empty cell is a missing file. A TIFF file name
/// with `#` and a name or number selects one of its channels.
pub(super) fn read(
    path: &Path,
    kind: ManifestFormat,
    channels: &Arc<[String]>,
    wanted: &[&str],
) -> Result<Vec<Sample>, ImageManifestError> {
    let rows = ManifestRows {
        folder: path.parent().unwrap_or(Path::new("")),
        channels,
        columns: [ID_COLUMN].iter().chain(wanted).copied().collect(),
        samples: Vec::new(),
        seen: HashMap::new(),
    };
    let read = match kind {
        ManifestFormat::Csv => csv_rows::read(path, rows),
        ManifestFormat::Parquet => parquet_rows::read(path, rows),
    };
    let finished = read.and_then(ManifestRows::finish);
    finished.map_err(|fault| ImageManifestError {
        path: path.into(),
        fault,
    })
}

/// Rejects large files and everything that is not a file.
fn check_file(path: &Path) -> Result<(), ImageManifestFault> {
    let metadata = path.metadata().map_err(ImageManifestFault::Io)?;
    if !metadata.is_file() {
        return Err(ImageManifestFault::NotAFile);
    }
    if metadata.len() > MAX_BYTES {
        return Err(ImageManifestFault::TooLarge);
    }
    Ok(())
}

/// Collects the rows of a manifest as samples.
struct ManifestRows<'a> {
    folder: &'a Path,
    channels: &'a Arc<[String]>,
    /// `Id` and the column of each channel.
    columns: Vec<&'a str>,
    samples: Vec<Sample>,
    seen: HashMap<String, RowPosition>,
}

impl ManifestRows<'_> {
    /// Returns the index of each of [`columns`](Self::columns) in `found`.
    fn column_indices(&self, found: &[&str]) -> Result<Vec<usize>, ImageManifestFault> {
        let index = |wanted: &&str| {
            let matches = |name: &&str| name.trim().eq_ignore_ascii_case(wanted);
            let mut indices = (0..found.len()).filter(|&index| matches(&found[index]));
            match (indices.next(), indices.next()) {
                (Some(index), None) => Ok(index),
                (Some(_), Some(_)) => Err(ImageManifestFault::ColumnTwice((*wanted).into())),
                (None, _) => Err(ImageManifestFault::MissingColumn {
                    wanted: (*wanted).into(),
                    found: found
                        .iter()
                        .map(|name| format!("`{name}`"))
                        .collect::<Vec<_>>()
                        .join(", "),
                }),
            }
        };
        self.columns.iter().map(index).collect()
    }

    /// Adds a row with the cells of [`columns`](Self::columns).
    fn push(&mut self, row: RowPosition, cells: &[&str]) -> Result<(), ImageManifestFault> {
        if let Some(index) = cells.iter().position(|cell| cell.len() > MAX_CELL) {
            let column = self.columns[index].into();
            return Err(ImageManifestFault::TooLong { row, column });
        }
        if self.samples.len() == MAX_SAMPLES {
            return Err(ImageManifestFault::TooManySamples);
        }
        let id = cells[0].trim().to_owned();
        if id.is_empty() {
            return Err(ImageManifestFault::EmptyId(row));
        }
        if let Some(first) = self.seen.insert(id.clone(), row) {
            return Err(ImageManifestFault::DuplicateId { row, id, first });
        }
        let (files, picks) = cells[1..].iter().map(|cell| self.cell(cell.trim())).unzip();
        let picks: Vec<ChannelSelector> = picks;
        let same = self.samples.last().filter(|last| *last.picks == picks[..]);
        let sample = Sample {
            id,
            channels: self.channels.clone(),
            files,
            picks: same.map_or_else(|| picks.into(), |last| last.picks.clone()),
        };
        self.samples.push(sample);
        Ok(())
    }

    /// Parses a cell into a file and a channel selector.
    fn cell(&self, cell: &str) -> (Option<PathBuf>, ChannelSelector) {
        let (file, pick) = match cell.rsplit_once('#') {
            Some((file, channel)) if is_tiff_name(file) => {
                (file, ChannelSelector::Channel(channel.into()))
            }
            _ => (cell, ChannelSelector::WholeFile),
        };
        ((!file.is_empty()).then(|| self.folder.join(file)), pick)
    }

    fn finish(mut self) -> Result<Vec<Sample>, ImageManifestFault> {
        if self.samples.is_empty() {
            return Err(ImageManifestFault::Empty);
        }
        self.samples.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(self.samples)
    }
}

#[cfg(test)]
mod tests;

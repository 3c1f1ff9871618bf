//! A manifest: a table with an id and the files of its channels in each row.

mod csv_rows;
mod parquet_rows;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use rgby_imaging::{ChannelSelector, Sample, is_tiff_name};

/// The column of ids.
const ID: &str = "Id";
/// Most bytes of a manifest.
const MAX_BYTES: u64 = 512 << 20;
/// Most samples of a manifest: Parquet can repeat a row millions of times in a small file.
const MAX_SAMPLES: usize = 1 << 22;
/// Most bytes of a cell; no file system takes a longer path.
const MAX_CELL: usize = 4096;

/// What is wrong with a manifest, and with which.
#[derive(Debug, Error)]
#[error("manifest {}: {fault}", path.display())]
pub struct ImageManifestError {
    /// The manifest.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: ImageManifestFault,
}

/// One way for a manifest to be wrong.
#[derive(Debug, Error)]
pub enum ImageManifestFault {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file is a folder or a device.
    #[error("is not a file; name a CSV or Parquet file, or a folder without such an ending")]
    NotAFile,
    /// The file is too large.
    #[error("has more than {MAX_BYTES} bytes; split it")]
    TooLarge,
    /// Too many rows.
    #[error("has more than {MAX_SAMPLES} samples; split it")]
    TooManySamples,
    /// The text is no CSV, or a line has too few or too many fields.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// The file is no Parquet file, or damaged.
    #[error("cannot be read as Parquet: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Rows of the Parquet file are damaged.
    #[error("cannot be read as Parquet: {0}")]
    ManifestRows(#[from] arrow_schema::ArrowError),
    /// The Parquet file contradicts itself.
    #[error("cannot be read as Parquet: it is damaged; write it again")]
    Damaged,
    /// Bytes that are not UTF-8.
    #[error("line {line} is not UTF-8 text; save the file as UTF-8 CSV")]
    NotUtf8 {
        /// Line in the file, from 1.
        line: u64,
    },
    /// A column is not there.
    #[error(
        "has no column `{wanted}`; its columns are {found}. It needs `Id` and one column a stain; \
         --channel STAIN=COLUMN says where the names differ"
    )]
    MissingColumn {
        /// The column.
        wanted: String,
        /// The columns that are there.
        found: String,
    },
    /// Two columns have the name of one that is wanted.
    #[error("has two columns `{0}`; rename one")]
    ColumnTwice(String),
    /// A column of a Parquet file holds something else than text.
    #[error("its column `{column}` holds {kind} and not text; write it as strings")]
    NotText {
        /// The column.
        column: String,
        /// Its type.
        kind: String,
    },
    /// No rows.
    #[error("holds no samples; give a header `Id` and the stains, and one line a sample")]
    Empty,
    /// A row without an id.
    #[error("{0}: the id is empty")]
    EmptyId(At),
    /// An id that is there twice.
    #[error("{at}: the id `{id}` was already in {first}; keep one of them")]
    DuplicateId {
        /// The second row.
        at: At,
        /// The id.
        id: String,
        /// The first row.
        first: At,
    },
    /// A cell that is too long for a path.
    #[error("{at}: column `{column}` has more than {MAX_CELL} bytes")]
    TooLong {
        /// The row.
        at: At,
        /// The column.
        column: String,
    },
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// What rows are called.
    unit: &'static str,
    /// Counted from 1.
    number: u64,
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.unit, self.number)
    }
}

/// What kind of table a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ManifestFormat {
    Csv,
    Parquet,
}

impl ManifestFormat {
    /// By the ending of the name; `None` for any other and for folders.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "csv" if !path.is_dir() => Some(Self::Csv),
            "parquet" if !path.is_dir() => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// Reads the samples of a manifest, sorted by id. `wanted` says in which column the file of each of
/// `channels` is. Paths are seen from the manifest's folder. An empty cell is a missing file.
/// `#` and a name or number behind a TIFF file's name choose one of its channels.
pub(super) fn read(
    path: &Path,
    kind: ManifestFormat,
    channels: &Arc<[String]>,
    wanted: &[&str],
) -> Result<Vec<Sample>, ImageManifestError> {
    let rows = ManifestRows {
        folder: path.parent().unwrap_or(Path::new("")),
        channels,
        columns: [ID].iter().chain(wanted).copied().collect(),
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

/// Refuses what is no file, or a large one.
fn check_file(path: &Path) -> Result<(), ImageManifestFault> {
    let metadata = path.metadata()?;
    if !metadata.is_file() {
        return Err(ImageManifestFault::NotAFile);
    }
    if metadata.len() > MAX_BYTES {
        return Err(ImageManifestFault::TooLarge);
    }
    Ok(())
}

/// The rows that were read so far.
struct ManifestRows<'a> {
    folder: &'a Path,
    channels: &'a Arc<[String]>,
    /// `Id`, and the column of each channel.
    columns: Vec<&'a str>,
    samples: Vec<Sample>,
    seen: HashMap<String, At>,
}

impl ManifestRows<'_> {
    /// Where each of [`columns`](Self::columns) is among those that are `found`.
    fn places(&self, found: &[&str]) -> Result<Vec<usize>, ImageManifestFault> {
        let place = |wanted: &&str| {
            let is_it = |name: &&str| name.trim().eq_ignore_ascii_case(wanted);
            let mut places = (0..found.len()).filter(|&place| is_it(&found[place]));
            match (places.next(), places.next()) {
                (Some(place), None) => Ok(place),
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
        self.columns.iter().map(place).collect()
    }

    /// Adds a row: the cells of [`columns`](Self::columns).
    fn push(&mut self, at: At, cells: &[&str]) -> Result<(), ImageManifestFault> {
        if let Some(place) = cells.iter().position(|cell| cell.len() > MAX_CELL) {
            let column = self.columns[place].into();
            return Err(ImageManifestFault::TooLong { at, column });
        }
        if self.samples.len() == MAX_SAMPLES {
            return Err(ImageManifestFault::TooManySamples);
        }
        let id = cells[0].trim().to_owned();
        if id.is_empty() {
            return Err(ImageManifestFault::EmptyId(at));
        }
        if let Some(first) = self.seen.insert(id.clone(), at) {
            return Err(ImageManifestFault::DuplicateId { at, id, first });
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

    /// A file, and what of it is meant.
    fn cell(&self, cell: &str) -> (Option<PathBuf>, ChannelSelector) {
        let (file, pick) = match cell.rsplit_once('#') {
            Some((file, channel)) if is_tiff_name(file) => {
                (file, ChannelSelector::Channel(channel.into()))
            }
            _ => (cell, ChannelSelector::Alone),
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

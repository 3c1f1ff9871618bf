//! Scores files with probabilities, from `rgby score --scores` or another program: CSV, Parquet, or
//! a `NumPy` array with ids in a second file.

mod columns;
mod csv_file;
mod npy;
mod parquet;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use npy::NpyFault;

/// Probabilities of a scores file.
#[derive(Debug, PartialEq)]
pub struct Scores {
    /// Class names in class order.
    pub classes: Vec<String>,
    /// Probabilities, 0–1, in class order, by id. `None` for empty fields: the sample could not be
    /// scored.
    pub rows: HashMap<String, Option<Vec<f32>>>,
    /// A note for the user if the columns were reordered.
    pub note: Option<String>,
}

/// An invalid scores file.
#[derive(Debug, Error)]
#[error("scores file {}: {fault}", path.display())]
pub struct ScoresError {
    pub path: PathBuf,
    pub fault: ScoresFault,
}

/// Why a scores file is invalid.
#[derive(Debug, Error)]
pub enum ScoresFault {
    /// An unreadable file, or a line with too few or too many fields.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    /// A file that is not Parquet, damaged, or not supported.
    #[error("cannot be read as Parquet: {0}\nhint: write it again, or as CSV")]
    Parquet(String),
    #[error(transparent)]
    Npy(#[from] NpyFault),
    /// The first column is not `Id`, or it is the only one.
    #[error(
        "the first column is `{0}`\nhint: the header must be `Id` and one column per class, as \
         written by `rgby score --scores`"
    )]
    Header(String),
    /// A column of the wrong type.
    #[error("the column `{column}` has the type {found} instead of {wanted}")]
    ColumnType {
        column: String,
        found: String,
        wanted: &'static str,
    },
    #[error("the column `{0}` exists twice\nhint: keep one of them")]
    DuplicateColumn(String),
    #[error("has no column for class {number}, `{name}`{others}\nhint: {CLASSES_HINT}")]
    MissingClass {
        number: usize,
        name: String,
        /// Example of a column that is not a class, in parentheses; may be empty.
        others: String,
    },
    #[error("the column `{0}` is not one of the classes\nhint: {CLASSES_HINT}")]
    UnknownClass(String),
    #[error("{0}: the id is empty")]
    EmptyId(String),
    #[error("{row}: duplicate id `{id}`\nhint: keep one of the rows")]
    DuplicateId {
        /// `line N` or `row N`.
        row: String,
        id: String,
    },
    /// A value that is not a number from 0 to 1.
    #[error(
        "{row}: `{text}` in column `{column}` is not a probability from 0 to 1\nhint: if these are \
         logits, apply the sigmoid"
    )]
    NotAProbability {
        /// `line N` or `row N`.
        row: String,
        column: String,
        text: String,
    },
    #[error("has no rows\nhint: write one row per sample")]
    Empty,
    /// A `NumPy` array without `--ids`.
    #[error(
        "a NumPy array has no ids\nhint: use --ids with a CSV file whose first column has the ids \
         of the rows in order (the labels file, if the rows have its order)"
    )]
    NeedsIds,
    /// A table, which has a column `Id`, with `--ids`.
    #[error("has a column `Id`, and --ids is for NumPy arrays only\nhint: omit --ids")]
    HasIds,
    /// Different numbers of rows and ids.
    #[error(
        "has {rows} rows, but {} has {ids} ids\nhint: both must list the same samples",
        ids_file.display()
    )]
    IdCount {
        rows: usize,
        ids: usize,
        ids_file: PathBuf,
    },
}

const CLASSES_HINT: &str =
    "rename the columns, or name the classes with --classes FILE (CSV with a column `Name`)";

/// Reads a scores file. `.npy` is a `NumPy` array `[rows, classes]` of float16, 32 or 64, with `ids`
/// from the named file. `.parquet` files and all others, read as CSV, are tables with a first
/// column `Id` and one column per class.
///
/// Columns are assigned to `classes` by name, in any order. Without `classes`, columns named 0, 1,
/// … are sorted by number. If most columns have names of Human Protein Atlas classes, all of these
/// must exist, and they are sorted in that order. Other columns are the classes in file order.
///
/// # Errors
///
/// [`ScoresError`] with the file name and the first problem.
pub fn read_scores(
    path: &Path,
    ids: Option<(&Path, Vec<String>)>,
    classes: Option<&[String]>,
) -> Result<Scores, ScoresError> {
    let extension = path.extension().map(OsStr::to_ascii_lowercase);
    let read = match extension.as_ref().and_then(|e| e.to_str()) {
        Some("npy") => match ids {
            Some((file, ids)) => npy::read(path, file, &ids, classes),
            None => Err(ScoresFault::NeedsIds),
        },
        _ if ids.is_some() => Err(ScoresFault::HasIds),
        Some("parquet") => parquet::read(path, classes),
        _ => csv_file::read(path, classes),
    };
    read.map_err(|fault| ScoresError {
        path: path.to_owned(),
        fault,
    })
}

/// Collects the rows of a scores file.
struct ScoreRows {
    columns: Vec<String>,
    order: columns::ColumnOrder,
    by_id: HashMap<String, Option<Vec<f32>>>,
}

impl ScoreRows {
    /// `columns` are those after the ids.
    fn new(columns: Vec<String>, classes: Option<&[String]>) -> Result<Self, ScoresFault> {
        Ok(Self {
            order: columns::order(&columns, classes)?,
            columns,
            by_id: HashMap::new(),
        })
    }

    /// Adds a row with a value per column, or `None` if the sample was not scored. `position`
    /// returns `line N` or `row N` for messages.
    fn push(
        &mut self,
        id: &str,
        row: Option<&[f32]>,
        position: &dyn Fn() -> String,
    ) -> Result<(), ScoresFault> {
        if id.is_empty() {
            return Err(ScoresFault::EmptyId(position()));
        }
        if let Some(row) = row {
            let bad = row.iter().position(|value| !(0.0..=1.0).contains(value));
            if let Some(at) = bad {
                return Err(self.not_a_probability(at, row[at].to_string(), position));
            }
        }
        let row = row.map(|row| self.order.columns.iter().map(|&at| row[at]).collect());
        if self.by_id.insert(id.to_owned(), row).is_some() {
            return Err(ScoresFault::DuplicateId {
                row: position(),
                id: id.to_owned(),
            });
        }
        Ok(())
    }

    fn not_a_probability(
        &self,
        column: usize,
        text: String,
        position: &dyn Fn() -> String,
    ) -> ScoresFault {
        ScoresFault::NotAProbability {
            row: position(),
            column: self.columns[column].clone(),
            text,
        }
    }

    fn finish(self) -> Result<Scores, ScoresFault> {
        if self.by_id.is_empty() {
            return Err(ScoresFault::Empty);
        }
        Ok(Scores {
            classes: self.order.classes,
            rows: self.by_id,
            note: self.order.note,
        })
    }
}

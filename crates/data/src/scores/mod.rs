//! Probabilities in a file, as `rgby score --scores` or any other program wrote them: CSV, Parquet
//! or a numpy array with its ids beside it.

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

/// The probabilities of a scores file.
#[derive(Debug, PartialEq)]
pub struct Scores {
    /// Names of the classes, in class order.
    pub classes: Vec<String>,
    /// A row of probabilities, 0–1, in class order, for each id; `None` where its fields are empty,
    /// because the sample could not be scored.
    pub rows: HashMap<String, Option<Vec<f32>>>,
    /// How the columns were taken, where that is not as they stand.
    pub note: Option<String>,
}

/// What is wrong with a scores file, and in which one.
#[derive(Debug, Error)]
#[error("scores file {}: {fault}", path.display())]
pub struct ScoresError {
    /// The scores file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: ScoresFault,
}

/// One way for a scores file to be wrong.
#[derive(Debug, Error)]
pub enum ScoresFault {
    /// The file cannot be read, or a line has too few or too many fields.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// It is no Parquet file, a damaged one, or one of a kind that cannot be read.
    #[error("cannot be read as Parquet: {0}; write it anew, or as CSV")]
    Parquet(String),
    /// It is no numpy array of probabilities.
    #[error(transparent)]
    Npy(#[from] NpyFault),
    /// The first column is not the ids, or it is the only one.
    #[error(
        "its header must be `Id` and one column a class, as `rgby score --scores` writes it; its \
         first column is `{0}`"
    )]
    Header(String),
    /// A column that does not hold what it should.
    #[error("the column `{column}` holds {found}; it should hold {wanted}")]
    ColumnType {
        /// The column.
        column: String,
        /// What is in it.
        found: String,
        /// What should be.
        wanted: &'static str,
    },
    /// Two columns of one name.
    #[error("the column `{0}` is there twice; keep one of them")]
    DuplicateColumn(String),
    /// A class without a column.
    #[error("has no column for class {number}, `{name}`{others}; {MEND_CLASSES}")]
    MissingClass {
        /// Number of the class.
        number: usize,
        /// Its name.
        name: String,
        /// The columns that are no class.
        others: String,
    },
    /// A column that is no class.
    #[error("the column `{0}` is not one of the classes; {MEND_CLASSES}")]
    UnknownClass(String),
    /// A row without an id.
    #[error("{0}: the id is empty")]
    EmptyId(String),
    /// An id that stands in two rows.
    #[error("{place}: the id `{id}` is there a second time; keep one of them")]
    DuplicateId {
        /// Line or row.
        place: String,
        /// The id.
        id: String,
    },
    /// Something else than a number from 0 to 1.
    #[error(
        "{place}: `{text}` in column `{column}` is not a probability from 0 to 1; if these are \
         logits, take their sigmoid"
    )]
    NotAProbability {
        /// Line or row.
        place: String,
        /// The column.
        column: String,
        /// What stands there.
        text: String,
    },
    /// No rows.
    #[error("holds no rows; it needs one for each sample")]
    Empty,
    /// An array has no ids.
    #[error(
        "a numpy array holds no ids; name a CSV file whose first column has those of its rows, in \
         their order, with --ids (the labels file, if the rows are in its order)"
    )]
    NeedsIds,
    /// A table has its own ids.
    #[error("has a column `Id` of its own; leave out --ids, which is for numpy arrays")]
    HasIds,
    /// Ids of other rows.
    #[error("has {rows} rows, but {} lists {ids} ids; they must be the same samples", ids_file.display())]
    IdCount {
        /// Rows of the array.
        rows: usize,
        /// How many ids there are.
        ids: usize,
        /// The file of ids.
        ids_file: PathBuf,
    },
}

const MEND_CLASSES: &str = "rename the columns, or name the classes with --classes FILE, a CSV file \
                            with a column `Name`";

/// Reads a scores file. `.npy` is a numpy array `[rows, classes]`, float16, 32 or 64, whose ids are
/// `ids`, from the file named beside them; `.parquet` and any other name, taken for CSV, are tables
/// with a first column `Id` and one column a class.
///
/// The columns belong to `classes` by name, in any order. Without them, columns that bear the
/// numbers 0, 1, … are put in this order, and columns that bear most of the names of the Human
/// Protein Atlas's classes must bear them all and are put in that order; any others are the classes,
/// as they stand.
///
/// # Errors
///
/// [`ScoresError`], naming the file and the first thing that is wrong.
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

/// Rows as they are read.
struct ScoreRows {
    columns: Vec<String>,
    order: columns::ColumnOrder,
    by_id: HashMap<String, Option<Vec<f32>>>,
}

impl ScoreRows {
    /// Of a table with these columns after the ids.
    fn new(columns: Vec<String>, classes: Option<&[String]>) -> Result<Self, ScoresFault> {
        Ok(Self {
            order: columns::order(&columns, classes)?,
            columns,
            by_id: HashMap::new(),
        })
    }

    /// Adds a row: a value for each column, or `None` if the sample was not scored. `place` says
    /// where it stands.
    fn push(
        &mut self,
        id: &str,
        row: Option<&[f32]>,
        place: &dyn Fn() -> String,
    ) -> Result<(), ScoresFault> {
        if id.is_empty() {
            return Err(ScoresFault::EmptyId(place()));
        }
        if let Some(row) = row {
            let bad = row.iter().position(|value| !(0.0..=1.0).contains(value));
            if let Some(at) = bad {
                return Err(self.not_a_probability(at, row[at].to_string(), place));
            }
        }
        let row = row.map(|row| self.order.columns.iter().map(|&at| row[at]).collect());
        if self.by_id.insert(id.to_owned(), row).is_some() {
            return Err(ScoresFault::DuplicateId {
                place: place(),
                id: id.to_owned(),
            });
        }
        Ok(())
    }

    fn not_a_probability(
        &self,
        column: usize,
        text: String,
        place: &dyn Fn() -> String,
    ) -> ScoresFault {
        ScoresFault::NotAProbability {
            place: place(),
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

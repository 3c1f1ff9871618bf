//! The labels file: CSV with a header, `Id,Target`, classes separated by spaces.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use thiserror::Error;

/// The samples that a labels file names, in the file's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelTable {
    /// Sample ids, each once.
    pub ids: Vec<String>,
    /// The classes of each sample, ascending and each once; empty where the file names none.
    pub targets: Vec<Vec<u16>>,
}

/// What is wrong with a labels file, and in which one.
#[derive(Debug, Error)]
#[error("labels file {}: {fault}", path.display())]
pub struct LabelError {
    /// The labels file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: LabelFault,
}

/// One way for a labels file to be wrong.
#[derive(Debug, Error)]
pub enum LabelFault {
    /// The file cannot be read, or a line has too few or too many fields.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// Bytes that are not UTF-8.
    #[error("line {line} is not UTF-8 text; save the file as UTF-8 CSV")]
    NotUtf8 {
        /// Line in the file, from 1.
        line: u64,
    },
    /// A column is not there.
    #[error("has no column `{wanted}`; its columns are {found}, wanted are `Id` and `Target`")]
    MissingColumn {
        /// The column.
        wanted: &'static str,
        /// The columns that are there.
        found: String,
    },
    /// No lines after the header, or not even a header.
    #[error("holds no samples; give a header `Id,Target` and one line a sample")]
    Empty,
    /// A line without an id.
    #[error("line {line}: the id is empty")]
    EmptyId {
        /// Line in the file, from 1.
        line: u64,
    },
    /// An id that stands on two lines.
    #[error("line {line}: the id `{id}` was already on line {first}; keep one of them")]
    DuplicateId {
        /// Line in the file, from 1.
        line: u64,
        /// The id.
        id: String,
        /// The line that had it first.
        first: u64,
    },
    /// A class that is not a number.
    #[error(
        "line {line}: `{text}` is not a class number; write the classes as numbers with spaces \
         between them, such as `0 25`"
    )]
    NotAClass {
        /// Line in the file, from 1.
        line: u64,
        /// What stands there.
        text: String,
    },
    /// A class that the model does not have.
    #[error("line {line}: class {class} does not exist; classes are 0 to {}", num_classes - 1)]
    ClassOutOfRange {
        /// Line in the file, from 1.
        line: u64,
        /// The class.
        class: u64,
        /// Number of classes.
        num_classes: usize,
    },
}

/// Reads a labels file with classes `0..num_classes`. Further columns are ignored; an empty
/// `Target` is a sample without any class.
///
/// # Errors
///
/// [`LabelError`] naming the file and, where it applies, the line.
pub fn read_labels(csv: &Path, num_classes: usize) -> Result<LabelTable, LabelError> {
    read(csv, num_classes).map_err(|fault| LabelError {
        path: csv.into(),
        fault,
    })
}

fn read(path: &Path, num_classes: usize) -> Result<LabelTable, LabelFault> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)?;
    let headers = reader.headers().map_err(explain)?.clone();
    if headers.is_empty() {
        return Err(LabelFault::Empty);
    }
    let id_column = find_column(&headers, "Id")?;
    let target_column = find_column(&headers, "Target")?;
    let mut table = LabelTable {
        ids: Vec::new(),
        targets: Vec::new(),
    };
    let mut lines = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(explain)?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |column| record.get(column).unwrap_or_default();
        let id = field(id_column);
        if id.is_empty() {
            return Err(LabelFault::EmptyId { line });
        }
        if let Some(first) = lines.insert(id.to_owned(), line) {
            return Err(LabelFault::DuplicateId {
                line,
                id: id.to_owned(),
                first,
            });
        }
        table.ids.push(id.to_owned());
        table
            .targets
            .push(parse_target(field(target_column), line, num_classes)?);
    }
    if table.ids.is_empty() {
        Err(LabelFault::Empty)
    } else {
        Ok(table)
    }
}

fn find_column(headers: &StringRecord, wanted: &'static str) -> Result<usize, LabelFault> {
    headers
        .iter()
        .position(|name| name == wanted)
        .ok_or_else(|| {
            let names: Vec<_> = headers.iter().map(|name| format!("`{name}`")).collect();
            LabelFault::MissingColumn {
                wanted,
                found: names.join(", "),
            }
        })
}

fn parse_target(text: &str, line: u64, num_classes: usize) -> Result<Vec<u16>, LabelFault> {
    let mut classes = Vec::new();
    for word in text.split_whitespace() {
        let class: u64 = word.parse().map_err(|_| LabelFault::NotAClass {
            line,
            text: word.to_owned(),
        })?;
        match u16::try_from(class) {
            Ok(small) if usize::from(small) < num_classes => classes.push(small),
            _ => {
                return Err(LabelFault::ClassOutOfRange {
                    line,
                    class,
                    num_classes,
                });
            }
        }
    }
    classes.sort_unstable();
    classes.dedup();
    Ok(classes)
}

fn explain(error: csv::Error) -> LabelFault {
    match error.kind() {
        csv::ErrorKind::Utf8 { pos, .. } => LabelFault::NotUtf8 {
            line: pos.as_ref().map_or(1, csv::Position::line),
        },
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(bytes: &[u8]) -> Result<LabelTable, LabelError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.csv");
        std::fs::write(&path, bytes).unwrap();
        read_labels(&path, 28)
    }

    /// The message for a file that must be refused.
    fn refusal(bytes: &[u8]) -> String {
        let message = read_bytes(bytes).unwrap_err().to_string();
        assert!(message.contains("labels.csv"), "{message}");
        message
    }

    #[test]
    fn order_is_kept_and_classes_are_sets() {
        let table = read_bytes(b"Id,Target\nb,16 0\na,\nc,5 5 27\n").unwrap();
        assert_eq!(table.ids, ["b", "a", "c"]);
        assert_eq!(table.targets, [vec![0, 16], vec![], vec![5, 27]]);
    }

    #[test]
    fn excel_and_extra_columns_are_tolerated() {
        let table = read_bytes(b"\xEF\xBB\xBFsplit,Target,Id\r\nx, 3 ,\"a\"\r\n").unwrap();
        assert_eq!(
            (table.ids, table.targets),
            (vec!["a".to_owned()], vec![vec![3]])
        );
    }

    #[test]
    fn columns_are_named() {
        let message = refusal(b"Id,Predicted\na,0\n");
        assert!(message.contains("no column `Target`") && message.contains("`Predicted`"));
        assert!(refusal(b"a,b\n1,2\n").contains("no column `Id`"));
    }

    #[test]
    fn classes_are_checked_with_their_line() {
        let message = refusal(b"Id,Target\na,0\nb,1 28\n");
        assert!(
            message.contains("line 3") && message.contains("class 28"),
            "{message}"
        );
        assert!(message.contains("0 to 27"), "{message}");
        assert!(refusal(b"Id,Target\na,99999999999\n").contains("class 99999999999"));
        assert!(refusal(b"Id,Target\na,Golgi\n").contains("`Golgi` is not a class number"));
        assert!(refusal(b"Id,Target\na,-1\n").contains("`-1` is not a class number"));
    }

    #[test]
    fn ids_are_checked_with_their_line() {
        let message = refusal(b"Id,Target\na,0\nb,1\na,2\n");
        assert!(
            message.contains("line 4") && message.contains("already on line 2"),
            "{message}"
        );
        assert!(refusal(b"Id,Target\na,0\n ,1\n").contains("line 3: the id is empty"));
    }

    #[test]
    fn files_that_are_no_table_are_refused() {
        assert!(refusal(b"").contains("holds no samples"));
        assert!(refusal(b"Id,Target\n").contains("holds no samples"));
        assert!(refusal(b"Id,Target\na,0\n\xFF\xFE,1\n").contains("line 3 is not UTF-8"));
        assert!(refusal(b"\xFF\xFEId,Target\n").contains("line 1 is not UTF-8"));
        let message = refusal(b"Id,Target\na,0,7\n");
        assert!(message.contains("line: 2"), "{message}");
        assert!(read_labels(Path::new("/nowhere/labels.csv"), 28).is_err());
    }
}

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

/// One line of a labels file, as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelLine {
    /// Line in the file, from 1.
    pub line: u64,
    /// The sample.
    pub id: String,
    /// Its classes, ascending and each once.
    pub classes: Vec<u16>,
}

/// A line of a labels file that something is wrong with.
#[derive(Debug)]
pub struct LabelProblem {
    /// The sample; empty if the line names none.
    pub id: String,
    /// What is wrong with it.
    pub fault: LabelFault,
}

/// Reads a labels file as [`read_labels`] does, but goes on after a line that is wrong: returns the
/// lines that name a sample for the first time, and all that is wrong with any.
///
/// # Errors
///
/// [`LabelError`] if the file cannot be read at all: no file, no columns, no lines.
pub fn survey_labels(
    csv: &Path,
    num_classes: usize,
) -> Result<(Vec<LabelLine>, Vec<LabelProblem>), LabelError> {
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    let read = each_row(csv, num_classes, &mut |row| {
        lines.extend(row.line);
        problems.extend(row.problem);
        Ok(())
    });
    read.map_err(|fault| LabelError {
        path: csv.into(),
        fault,
    })?;
    Ok((lines, problems))
}

fn read(path: &Path, num_classes: usize) -> Result<LabelTable, LabelFault> {
    let mut table = LabelTable {
        ids: Vec::new(),
        targets: Vec::new(),
    };
    each_row(path, num_classes, &mut |row| {
        if let Some(problem) = row.problem {
            return Err(problem.fault);
        }
        if let Some(line) = row.line {
            table.ids.push(line.id);
            table.targets.push(line.classes);
        }
        Ok(())
    })?;
    Ok(table)
}

/// What a line came to: either may be there, or both.
struct LabelRow {
    line: Option<LabelLine>,
    problem: Option<LabelProblem>,
}

impl LabelRow {
    fn unusable(id: &str, fault: LabelFault) -> Self {
        let id = id.to_owned();
        Self {
            line: None,
            problem: Some(LabelProblem { id, fault }),
        }
    }
}

/// Shows each line to `visit`, until that returns an error.
fn each_row(
    path: &Path,
    num_classes: usize,
    visit: &mut dyn FnMut(LabelRow) -> Result<(), LabelFault>,
) -> Result<(), LabelFault> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)?;
    let headers = reader.headers().map_err(explain)?.clone();
    if headers.is_empty() {
        return Err(LabelFault::Empty);
    }
    let columns = (
        find_column(&headers, "Id")?,
        find_column(&headers, "Target")?,
    );
    let mut seen = HashMap::new();
    let mut any = false;
    for record in reader.records() {
        any = true;
        visit(match record {
            Ok(record) => row(&record, columns, num_classes, &mut seen),
            // It would be the same on every line that follows.
            Err(error) if error.is_io_error() => return Err(error.into()),
            Err(error) => LabelRow::unusable("", explain(error)),
        })?;
    }
    if any { Ok(()) } else { Err(LabelFault::Empty) }
}

/// Reads one line; `seen` are the lines of the ids before it.
fn row(
    record: &StringRecord,
    (id_column, target_column): (usize, usize),
    num_classes: usize,
    seen: &mut HashMap<String, u64>,
) -> LabelRow {
    let line = record.position().map_or(0, csv::Position::line);
    let field = |column| record.get(column).unwrap_or_default();
    let id = field(id_column);
    if id.is_empty() {
        return LabelRow::unusable("", LabelFault::EmptyId { line });
    }
    if let Some(first) = seen.get(id).copied() {
        let id = id.to_owned();
        return LabelRow::unusable(&id.clone(), LabelFault::DuplicateId { line, id, first });
    }
    seen.insert(id.to_owned(), line);
    let (classes, fault) = parse_target(field(target_column), line, num_classes);
    let id = id.to_owned();
    LabelRow {
        problem: fault.map(|fault| LabelProblem {
            id: id.clone(),
            fault,
        }),
        line: Some(LabelLine { line, id, classes }),
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

/// The classes that exist among those that a field names, and the first that does not.
fn parse_target(text: &str, line: u64, num_classes: usize) -> (Vec<u16>, Option<LabelFault>) {
    let mut classes = Vec::new();
    let mut fault = None;
    for word in text.split_whitespace() {
        match parse_class(word, line, num_classes) {
            Ok(class) => classes.push(class),
            Err(wrong) => {
                fault.get_or_insert(wrong);
            }
        }
    }
    classes.sort_unstable();
    classes.dedup();
    (classes, fault)
}

fn parse_class(word: &str, line: u64, num_classes: usize) -> Result<u16, LabelFault> {
    let class: u64 = word.parse().map_err(|_| LabelFault::NotAClass {
        line,
        text: word.to_owned(),
    })?;
    let small = u16::try_from(class).ok();
    small
        .filter(|&small| usize::from(small) < num_classes)
        .ok_or(LabelFault::ClassOutOfRange {
            line,
            class,
            num_classes,
        })
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

    #[test]
    fn a_survey_goes_on_after_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("labels.csv");
        let text = b"Id,Target\na,0 28 x 1\na,2\n,3\nb,4,5\n\xFF,6\nc,\n";
        std::fs::write(&path, text).unwrap();
        let (lines, problems) = survey_labels(&path, 28).unwrap();
        let lines: Vec<_> = lines
            .into_iter()
            .map(|l| (l.line, l.id, l.classes))
            .collect();
        assert_eq!(
            lines,
            [(2, "a".to_owned(), vec![0, 1]), (7, "c".to_owned(), vec![])]
        );
        let ids: Vec<_> = problems.iter().map(|p| p.id.as_str()).collect();
        assert_eq!(ids, ["a", "a", "", "", ""]);
        let faults: Vec<_> = problems.iter().map(|p| p.fault.to_string()).collect();
        for (fault, part) in faults.iter().zip([
            "class 28",
            "already on line 2",
            "line 4: the id is empty",
            "line: 5",
            "line 6 is not UTF-8",
        ]) {
            assert!(fault.contains(part), "no {part} in {fault}");
        }
        assert!(survey_labels(&dir.path().join("none.csv"), 28).is_err());
    }
}

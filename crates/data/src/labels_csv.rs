//! The labels file: CSV with the header `Id,Target`, classes separated by spaces.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use csv::StringRecord;
use thiserror::Error;

/// The samples of a labels file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelTable {
    /// Unique sample ids.
    pub ids: Vec<String>,
    /// Classes of each sample, ascending and unique; empty for samples without class.
    pub targets: Vec<Vec<u16>>,
}

/// An invalid labels file.
#[derive(Debug, Error)]
#[error("labels file {}: {fault}", path.display())]
pub struct LabelError {
    pub path: PathBuf,
    pub fault: LabelFault,
}

/// Why a labels file is invalid. Each text is one line, as `check-data` lists it.
#[derive(Debug, Error)]
pub enum LabelFault {
    /// An unreadable file, or a line with too few or too many fields.
    #[error(transparent)]
    Csv(#[from] csv::Error),
    #[error("line {line} is not UTF-8; save the file as UTF-8 CSV")]
    NotUtf8 { line: u64 },
    #[error("has no column `{wanted}`; its columns are {found}, required are `Id` and `Target`")]
    MissingColumn { wanted: &'static str, found: String },
    /// No lines after the header, or no header.
    #[error("has no samples; write a header `Id,Target` and one line per sample")]
    Empty,
    #[error("line {line}: the id is empty")]
    EmptyId { line: u64 },
    /// A duplicate id.
    #[error("line {line}: the id `{id}` was already on line {first}; keep one of them")]
    DuplicateId { line: u64, id: String, first: u64 },
    #[error(
        "line {line}: `{text}` is not a class number; separate class numbers by spaces, such as \
         `0 25`"
    )]
    NotAClass { line: u64, text: String },
    /// A class number above the last class.
    #[error("line {line}: class {class} does not exist; classes are 0 to {}", num_classes - 1)]
    ClassOutOfRange {
        line: u64,
        class: u64,
        num_classes: usize,
    },
}

/// Reads a labels file with classes `0..num_classes`. Other columns are ignored. An empty `Target`
/// is a sample without any class.
///
/// # Errors
///
/// [`LabelError`] with the file and, where it applies, the line number from 1.
pub fn read_labels(csv: &Path, num_classes: usize) -> Result<LabelTable, LabelError> {
    read(csv, num_classes).map_err(|fault| LabelError {
        path: csv.into(),
        fault,
    })
}

/// The valid part of one line of a labels file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelLine {
    pub line: u64,
    /// Id of the sample.
    pub id: String,
    /// Ascending and unique.
    pub classes: Vec<u16>,
}

/// An invalid line of a labels file.
#[derive(Debug)]
pub struct LabelProblem {
    /// Id of the sample; empty if the line has none.
    pub id: String,
    pub fault: LabelFault,
}

/// Reads a labels file as [`read_labels`] does, but continues after invalid lines. Returns the
/// first line of each sample, and all problems.
///
/// # Errors
///
/// [`LabelError`] if the file is missing, or has no header or no lines.
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

/// Result of parsing a line: its valid part, its problem, or both.
struct LabelRow {
    line: Option<LabelLine>,
    problem: Option<LabelProblem>,
}

impl LabelRow {
    fn invalid(id: &str, fault: LabelFault) -> Self {
        let id = id.to_owned();
        Self {
            line: None,
            problem: Some(LabelProblem { id, fault }),
        }
    }
}

/// Calls `visit` for each line until it returns an error.
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
            // Every following line would fail in the same way.
            Err(error) if error.is_io_error() => return Err(error.into()),
            Err(error) => LabelRow::invalid("", explain(error)),
        })?;
    }
    if any { Ok(()) } else { Err(LabelFault::Empty) }
}

/// Parses one line; `seen` maps earlier ids to their lines.
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
        return LabelRow::invalid("", LabelFault::EmptyId { line });
    }
    if let Some(first) = seen.get(id).copied() {
        let id = id.to_owned();
        return LabelRow::invalid(&id.clone(), LabelFault::DuplicateId { line, id, first });
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

/// Parses a field: its valid classes, and the problem of the first invalid one.
fn parse_target(text: &str, line: u64, num_classes: usize) -> (Vec<u16>, Option<LabelFault>) {
    let mut classes = Vec::new();
    let mut fault = None;
    for word in text.split_whitespace() {
        match parse_class(word, line, num_classes) {
            Ok(class) => classes.push(class),
            Err(error) => {
                fault.get_or_insert(error);
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
    let number = u16::try_from(class).ok();
    number
        .filter(|&number| usize::from(number) < num_classes)
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

    /// Returns the error message for an invalid file.
    fn error_for(bytes: &[u8]) -> String {
        let message = read_bytes(bytes).unwrap_err().to_string();
        assert!(message.contains("labels.csv"), "{message}");
        message
    }

    #[test]
    fn keeps_the_order_and_removes_duplicate_classes() {
        let table = read_bytes(b"Id,Target\nb,16 0\na,\nc,5 5 27\n").unwrap();
        assert_eq!(table.ids, ["b", "a", "c"]);
        assert_eq!(table.targets, [vec![0, 16], vec![], vec![5, 27]]);
    }

    #[test]
    fn accepts_a_byte_order_mark_and_extra_columns() {
        let table = read_bytes(b"\xEF\xBB\xBFsplit,Target,Id\r\nx, 3 ,\"a\"\r\n").unwrap();
        assert_eq!(
            (table.ids, table.targets),
            (vec!["a".to_owned()], vec![vec![3]])
        );
    }

    #[test]
    fn errors_name_missing_and_existing_columns() {
        let message = error_for(b"Id,Predicted\na,0\n");
        assert!(message.contains("no column `Target`") && message.contains("`Predicted`"));
        assert!(error_for(b"a,b\n1,2\n").contains("no column `Id`"));
    }

    #[test]
    fn class_errors_have_line_numbers() {
        let message = error_for(b"Id,Target\na,0\nb,1 28\n");
        assert!(
            message.contains("line 3") && message.contains("class 28"),
            "{message}"
        );
        assert!(message.contains("0 to 27"), "{message}");
        assert!(error_for(b"Id,Target\na,99999999999\n").contains("class 99999999999"));
        assert!(error_for(b"Id,Target\na,Golgi\n").contains("`Golgi` is not a class number"));
        assert!(error_for(b"Id,Target\na,-1\n").contains("`-1` is not a class number"));
    }

    #[test]
    fn id_errors_have_line_numbers() {
        let message = error_for(b"Id,Target\na,0\nb,1\na,2\n");
        assert!(
            message.contains("line 4") && message.contains("already on line 2"),
            "{message}"
        );
        assert!(error_for(b"Id,Target\na,0\n ,1\n").contains("line 3: the id is empty"));
    }

    #[test]
    fn rejects_files_without_table() {
        assert!(error_for(b"").contains("has no samples"));
        assert!(error_for(b"Id,Target\n").contains("has no samples"));
        assert!(error_for(b"Id,Target\na,0\n\xFF\xFE,1\n").contains("line 3 is not UTF-8"));
        assert!(error_for(b"\xFF\xFEId,Target\n").contains("line 1 is not UTF-8"));
        let message = error_for(b"Id,Target\na,0,7\n");
        assert!(message.contains("line: 2"), "{message}");
        assert!(read_labels(Path::new("/nowhere/labels.csv"), 28).is_err());
    }

    #[test]
    fn survey_continues_after_invalid_lines() {
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

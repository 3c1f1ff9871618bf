//! Class names of custom data, from a CSV.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{LabelError, read_labels};

/// Limit of classes of a model.
const MAX_CLASSES: usize = 10_000;

/// Why a file of class names cannot be used.
#[derive(Debug, Error)]
pub enum ClassNamesError {
    #[error("{}: {cause}", path.display())]
    Csv { path: PathBuf, cause: csv::Error },
    /// The file is an invalid labels file.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The columns or values are invalid.
    #[error("{}: {reason}", path.display())]
    Invalid { path: PathBuf, reason: String },
}

/// Reads class names and returns them in class order.
///
/// The file has a column `Name`, and optionally `Class` with the numbers 0, 1, … in any order. A
/// labels file `Id,Target` is accepted too; its classes are named `Class 0` up to the highest one.
///
/// # Errors
///
/// [`ClassNamesError`] with the file name.
pub fn read_class_names(path: &Path) -> Result<Vec<String>, ClassNamesError> {
    let csv_error = |cause| ClassNamesError::Csv {
        path: path.to_owned(),
        cause,
    };
    let invalid = |reason: String| ClassNamesError::Invalid {
        path: path.to_owned(),
        reason,
    };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(csv_error)?;
    let headers = reader.headers().map_err(csv_error)?.clone();
    let column = |wanted: &str| headers.iter().position(|name| name == wanted);
    let Some(name_column) = column("Name") else {
        if column("Target").is_some() {
            let labels = read_labels(path, MAX_CLASSES)?;
            let highest = labels.targets.iter().flatten().max().copied().unwrap_or(0);
            return Ok((0..=highest)
                .map(|class| format!("Class {class}"))
                .collect());
        }
        return Err(invalid(
            "has no column `Name` (class names) or `Target` (labels)".into(),
        ));
    };
    let mut names = Vec::new();
    for record in reader.records() {
        let record = record.map_err(csv_error)?;
        let class = match column("Class") {
            Some(column) => record.get(column).unwrap_or_default().to_owned(),
            None => names.len().to_string(),
        };
        let number = class
            .parse::<usize>()
            .ok()
            .filter(|&class| class < MAX_CLASSES);
        let number = number.ok_or_else(|| invalid(format!("`{class}` is not a class number")))?;
        names.push((
            number,
            record.get(name_column).unwrap_or_default().to_owned(),
        ));
    }
    names.sort();
    let numbers = names.iter().map(|(number, _)| *number);
    if names.is_empty() || !numbers.eq(0..names.len()) {
        return Err(invalid(format!(
            "column `Class` must contain each number from 0 to {} once",
            names.len().saturating_sub(1)
        )));
    }
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        read_class_names(file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn returns_names_in_class_order() {
        assert_eq!(
            read("Name\nnucleus\nactin\n").unwrap(),
            ["nucleus", "actin"]
        );
        let numbered = "Class,Name\n1,actin\n0,\"nucleus, whole\"\n";
        assert_eq!(read(numbered).unwrap(), ["nucleus, whole", "actin"]);
        let labels = "Id,Target\na,0 2\nb,1\n";
        assert_eq!(read(labels).unwrap(), ["Class 0", "Class 1", "Class 2"]);
    }

    #[test]
    fn rejects_gaps_and_unknown_columns() {
        for (text, expected) in [
            ("Class,Name\n0,a\n2,b\n", "from 0 to 1"),
            ("Class,Name\n0,a\n0,b\n", "from 0 to 1"),
            ("Class,Name\nx,a\n", "`x`"),
            ("Name\n", "once"),
            ("Label\na\n", "`Name`"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}

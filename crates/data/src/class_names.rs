//! Names of the classes of one's own data, from a CSV.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{LabelError, read_labels};

/// Most classes that a model may have.
const MAX_CLASSES: usize = 10_000;

/// What is wrong with a file of class names.
#[derive(Debug, Error)]
pub enum ClassNamesError {
    /// The file cannot be read as CSV.
    #[error("{}: {source}", path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: csv::Error,
    },
    /// It is a labels file, and something is wrong with it.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// It has the wrong columns or values.
    #[error("{}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the mend.
        reason: String,
    },
}

/// Class names, in class order.
///
/// The file has a column `Name`, and optionally `Class` with the numbers 0, 1, … in any order; or
/// it is a labels file `Id,Target`, whose classes are then called `Class 0` to the highest one
/// that occurs.
///
/// # Errors
///
/// [`ClassNamesError`], naming the file.
pub fn read_class_names(path: &Path) -> Result<Vec<String>, ClassNamesError> {
    let at = |source| ClassNamesError::Csv {
        path: path.to_owned(),
        source,
    };
    let invalid = |reason: String| ClassNamesError::Invalid {
        path: path.to_owned(),
        reason,
    };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(at)?;
    let headers = reader.headers().map_err(at)?.clone();
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
            "has neither a column `Name` (class names) nor `Target` (labels)".into(),
        ));
    };
    let mut names = Vec::new();
    for record in reader.records() {
        let record = record.map_err(at)?;
        let class = match column("Class") {
            Some(column) => record.get(column).unwrap_or_default().to_owned(),
            None => names.len().to_string(),
        };
        let number = class
            .parse::<usize>()
            .ok()
            .filter(|&class| class < MAX_CLASSES);
        let number = number.ok_or_else(|| invalid(format!("`{class}` is no class number")))?;
        names.push((
            number,
            record.get(name_column).unwrap_or_default().to_owned(),
        ));
    }
    names.sort();
    let numbers = names.iter().map(|(number, _)| *number);
    if names.is_empty() || !numbers.eq(0..names.len()) {
        return Err(invalid(format!(
            "`Class` must hold each number from 0 to {} once",
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
    fn names_come_in_class_order() {
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
    fn gaps_and_strange_columns_are_refused() {
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

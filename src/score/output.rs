//! The files that scoring writes and the list of ids that it reads.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Failure, ScoreTable};
use crate::fsx;
use crate::imaging::Sample;

/// Why a file of ids could not be read, or a result not be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The wish for a format that is not there.
    #[error("{}: Parquet is not supported yet; choose a name that ends in .csv", .0.display())]
    Parquet(PathBuf),
    /// A result file could not be written or removed.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// The file of ids is not what it should be.
    #[error("{}: {reason}", .path.display())]
    Ids {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
}

/// Refuses output names that cannot be served, before any work is done.
///
/// # Errors
///
/// [`OutputError::Parquet`] if `path` ends in `.parquet`.
pub fn check_path(path: &Path) -> Result<(), OutputError> {
    if path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("parquet"))
    {
        return Err(OutputError::Parquet(path.to_owned()));
    }
    Ok(())
}

/// The numbers of the classes whose probability is at least their threshold, ascending.
#[must_use]
pub fn predicted_classes(probabilities: &[f32], thresholds: &[f32]) -> Vec<usize> {
    let pairs = probabilities.iter().zip(thresholds).enumerate();
    pairs
        .filter(|(_, (p, threshold))| p >= threshold)
        .map(|(class, _)| class)
        .collect()
}

/// Writes `Id,Predicted`: class numbers separated by single spaces, one row a sample in the
/// table's order; a sample that failed gets an empty prediction.
///
/// # Errors
///
/// The file cannot be written, or its name asks for Parquet.
pub fn write_predictions(
    path: &Path,
    table: &ScoreTable,
    thresholds: &[f32],
) -> Result<(), OutputError> {
    let rows = table.ids.iter().zip(&table.probabilities).map(|(id, row)| {
        let classes = predicted_classes(row.as_deref().unwrap_or_default(), thresholds);
        let classes: Vec<_> = classes.iter().map(usize::to_string).collect();
        [id.clone(), classes.join(" ")]
    });
    write_csv(path, ["Id", "Predicted"], rows)
}

/// Writes `Id` and a column of probabilities for each class, one row a sample in the table's
/// order; a sample that failed has empty fields. The numbers read back to the same float32.
///
/// # Errors
///
/// The file cannot be written, or its name asks for Parquet.
pub fn write_scores(
    path: &Path,
    table: &ScoreTable,
    classes: &[String],
) -> Result<(), OutputError> {
    let header = ["Id"].into_iter().chain(classes.iter().map(String::as_str));
    let rows = table.ids.iter().zip(&table.probabilities).map(|(id, row)| {
        let mut record = vec![id.clone()];
        match row {
            Some(row) => record.extend(row.iter().map(f32::to_string)),
            None => record.extend(classes.iter().map(|_| String::new())),
        }
        record
    });
    write_csv(path, header, rows)
}

/// Where the failures of a run that writes `output` are listed: `FILE.errors.csv` beside
/// `FILE.csv`.
#[must_use]
pub fn errors_path(output: &Path) -> PathBuf {
    let known = |e: &std::ffi::OsStr| ["csv", "parquet"].iter().any(|k| e.eq_ignore_ascii_case(k));
    let stem = if output.extension().is_some_and(known) {
        output.with_extension("")
    } else {
        output.to_owned()
    };
    let mut name = stem.into_os_string();
    name.push(".errors.csv");
    name.into()
}

/// Writes `Id,File,Error`, one row a failure. Without failures, an older file at `path` is
/// removed, so that it cannot be taken for this run's.
///
/// # Errors
///
/// The file cannot be written or removed.
pub fn write_errors(path: &Path, failures: &[Failure]) -> Result<(), OutputError> {
    if failures.is_empty() {
        return match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                let text = format!("cannot remove {}: {e}", path.display());
                Err(io::Error::new(e.kind(), text).into())
            }
            _ => Ok(()),
        };
    }
    write_csv(
        path,
        ["Id", "File", "Error"],
        failures.iter().map(|f| [&f.id, &f.file, &f.error]),
    )
}

fn write_csv<H, R>(path: &Path, header: H, rows: impl Iterator<Item = R>) -> Result<(), OutputError>
where
    H: IntoIterator<Item: AsRef<[u8]>>,
    R: IntoIterator<Item: AsRef<[u8]>>,
{
    check_path(path)?;
    fsx::write_atomic_with(path, |file| {
        let mut csv = csv::Writer::from_writer(file);
        csv.write_record(header)?;
        for row in rows {
            csv.write_record(row)?;
        }
        csv.flush()
    })?;
    Ok(())
}

/// Reads the first column of a CSV file with a header: the ids to score, in order.
///
/// # Errors
///
/// The file cannot be read, holds no ids, or has an id that is empty or there twice.
pub fn read_ids(path: &Path) -> Result<Vec<String>, OutputError> {
    let fault = |reason: String| OutputError::Ids {
        path: path.to_owned(),
        reason,
    };
    let unreadable = |e: csv::Error| fault(format!("cannot be read as CSV: {e}"));
    let mut reader = csv::ReaderBuilder::new()
        .flexible(true)
        .from_path(path)
        .map_err(unreadable)?;
    let mut ids = Vec::new();
    let mut seen = HashSet::new();
    for record in reader.records() {
        let record = record.map_err(unreadable)?;
        let line = record.position().map_or(0, csv::Position::line);
        let id = record.get(0).unwrap_or_default().trim();
        if id.is_empty() {
            return Err(fault(format!("line {line} has no id in its first column")));
        }
        if !seen.insert(id.to_owned()) {
            return Err(fault(format!(
                "line {line}: the id `{id}` is there a second time"
            )));
        }
        ids.push(id.to_owned());
    }
    if ids.is_empty() {
        let reason = "has no ids; it needs a header line and one id a line, in the first column";
        return Err(fault(reason.into()));
    }
    Ok(ids)
}

/// The samples with these ids, in this order. An id without images yields a sample without
/// files, which scoring lists among the failures.
#[must_use]
pub fn select(samples: Vec<Sample>, ids: &[String]) -> Vec<Sample> {
    let mut by_id: HashMap<String, Sample> = samples
        .into_iter()
        .map(|sample| (sample.id.clone(), sample))
        .collect();
    let missing = |id: &String| Sample {
        id: id.clone(),
        channels: [].into(),
        files: Vec::new(),
    };
    ids.iter()
        .map(|id| by_id.remove(id).unwrap_or_else(|| missing(id)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ScoreTable {
        ScoreTable {
            ids: ["b", "a,\"1\"", "c"].map(String::from).to_vec(),
            probabilities: vec![Some(vec![0.5, 0.1, 0.9]), None, Some(vec![0.4, 1e-9, 0.3])],
            failures: vec![Failure {
                id: "a,\"1\"".into(),
                file: "x/a_red.png".into(),
                error: "two\nlines".into(),
            }],
        }
    }

    fn classes() -> Vec<String> {
        ["Nucleus", "Golgi, cis", "ER"].map(String::from).to_vec()
    }

    #[test]
    fn predictions_scores_and_errors_are_as_documented() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out.csv");
        write_predictions(&out, &table(), &[0.5, 0.5, 0.5]).unwrap();
        let text = fs::read_to_string(&out).unwrap();
        assert_eq!(text, "Id,Predicted\nb,0 2\n\"a,\"\"1\"\"\",\nc,\n");

        write_scores(&out, &table(), &classes()).unwrap();
        let text = fs::read_to_string(&out).unwrap();
        let wanted = "Id,Nucleus,\"Golgi, cis\",ER\nb,0.5,0.1,0.9\n\"a,\"\"1\"\"\",,,\nc,0.4,0.000000001,0.3\n";
        assert_eq!(text, wanted);

        let errors = errors_path(&out);
        assert_eq!(errors, dir.path().join("out.errors.csv"));
        write_errors(&errors, &table().failures).unwrap();
        let text = fs::read_to_string(&errors).unwrap();
        assert_eq!(
            text,
            "Id,File,Error\n\"a,\"\"1\"\"\",x/a_red.png,\"two\nlines\"\n"
        );
        write_errors(&errors, &[]).unwrap();
        assert!(!errors.exists());
        write_errors(&errors, &[]).unwrap();
    }

    #[test]
    fn scores_read_back_to_the_same_floats() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("scores.csv");
        let mut table = table();
        let hard = vec![f32::MIN_POSITIVE, 0.1 + 0.2, 1.0 - f32::EPSILON / 2.0];
        table.probabilities[0] = Some(hard.clone());
        write_scores(&out, &table, &classes()).unwrap();
        let mut reader = csv::Reader::from_path(&out).unwrap();
        let row = reader.records().next().unwrap().unwrap();
        let read: Vec<f32> = row
            .iter()
            .skip(1)
            .map(|cell| cell.parse().unwrap())
            .collect();
        assert_eq!(read, hard);
    }

    #[test]
    fn names_that_cannot_be_written_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let parquet = dir.path().join("out.Parquet");
        let error = write_predictions(&parquet, &table(), &[0.5; 3])
            .unwrap_err()
            .to_string();
        assert!(error.contains(".csv") && !parquet.exists(), "{error}");
        let error = write_scores(dir.path(), &table(), &classes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(dir.path().to_str().unwrap()), "{error}");
        assert!(
            write_errors(dir.path(), &[])
                .unwrap_err()
                .to_string()
                .contains("cannot remove")
        );
    }

    #[test]
    fn errors_lie_beside_the_output() {
        for (output, errors) in [
            ("a/out.csv", "a/out.errors.csv"),
            ("out.v2.CSV", "out.v2.errors.csv"),
            ("out.parquet", "out.errors.csv"),
            ("out.v2", "out.v2.errors.csv"),
            ("out", "out.errors.csv"),
        ] {
            assert_eq!(errors_path(Path::new(output)), Path::new(errors));
        }
    }

    #[test]
    fn ids_are_the_first_column_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ids.csv");
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            read_ids(&file).map_err(|e| e.to_string())
        };
        assert_eq!(
            read("\u{feff}Id,Predicted\r\nz,0 1\r\n\"a b\"\r\ny,\r\n").unwrap(),
            ["z", "a b", "y"]
        );
        for (text, wanted) in [
            ("", "no ids"),
            ("Id\n", "no ids"),
            ("Id\na\nb\na\n", "line 4: the id `a`"),
            ("Id,P\na,1\n,2\n", "line 3 has no id"),
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.contains(wanted) && error.contains("ids.csv"),
                "{error}"
            );
        }
        fs::write(&file, b"Id\n\xff\xfe\n").unwrap();
        assert!(read_ids(&file).unwrap_err().to_string().contains("UTF-8"));
        assert!(read_ids(&dir.path().join("none.csv")).is_err());
    }

    #[test]
    fn ids_without_images_become_samples_without_files() {
        let sample = |id: &str| Sample {
            id: id.into(),
            channels: ["red".to_owned()].into(),
            files: vec![Some(format!("{id}_red.png").into())],
        };
        let ids = ["c", "x", "a"].map(String::from);
        let selected = select(vec![sample("a"), sample("b"), sample("c")], &ids);
        assert_eq!(selected[0], sample("c"));
        assert_eq!((selected[1].id.as_str(), selected[1].files.len()), ("x", 0));
        assert_eq!(selected[2], sample("a"));
    }
}

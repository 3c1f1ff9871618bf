//! Results as CSV.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::super::{Failure, ScoreTable};
use super::{ERRORS_HEADER, OutputError, Tables, predicted_classes};
use rgby_common::atomic_file;

pub(super) fn write_predictions(
    path: &Path,
    tables: &mut Tables,
    thresholds: &[f32],
) -> Result<(), OutputError> {
    let row = |id: &str, row: Option<&[f32]>| {
        let classes = predicted_classes(row.unwrap_or_default(), thresholds);
        let classes: Vec<_> = classes.iter().map(usize::to_string).collect();
        vec![id.to_owned(), classes.join(" ")]
    };
    write(path, ["Id", "Predicted"], &mut rows(tables, &row))
}

pub(super) fn write_scores(
    path: &Path,
    tables: &mut Tables,
    classes: &[String],
) -> Result<(), OutputError> {
    let header = ["Id"].into_iter().chain(classes.iter().map(String::as_str));
    let row = |id: &str, row: Option<&[f32]>| {
        let mut record = vec![id.to_owned()];
        match row {
            Some(row) => record.extend(row.iter().map(f32::to_string)),
            None => record.extend(classes.iter().map(|_| String::new())),
        }
        record
    };
    write(path, header, &mut rows(tables, &row))
}

/// Returns the fields of a sample, from its id and probabilities.
type Record<'a> = dyn Fn(&str, Option<&[f32]>) -> Vec<String> + 'a;

/// Returns one record per sample; a table with an error becomes that error.
fn rows<'a>(
    tables: &'a mut Tables,
    record: &'a Record,
) -> impl Iterator<Item = io::Result<Vec<String>>> + 'a {
    tables.flat_map(move |table| match table {
        Ok(table) => {
            let pairs = table.ids.iter().zip(&table.probabilities);
            let records = pairs.map(|(id, row)| Ok(record(id, row.as_deref())));
            records.collect::<Vec<_>>()
        }
        Err(error) => vec![Err(error)],
    })
}

/// Writes a header and rows atomically.
pub(super) fn write<H, R>(
    path: &Path,
    header: H,
    rows: &mut dyn Iterator<Item = io::Result<R>>,
) -> Result<(), OutputError>
where
    H: IntoIterator<Item: AsRef<[u8]>>,
    R: IntoIterator<Item: AsRef<[u8]>>,
{
    atomic_file::write_atomic_with(path, |file| {
        let mut csv = csv::Writer::from_writer(file);
        csv.write_record(header)?;
        for row in rows {
            csv.write_record(row?)?;
        }
        csv.flush()
    })?;
    Ok(())
}

/// Reads a range of columns, counted after the id, of a CSV file of
/// [`write_scores`](super::write_scores). Failed samples have no probabilities; the list of
/// failures is empty.
///
/// # Errors
///
/// The file cannot be read or has other content.
pub fn read_scores(path: &Path, columns: Range<usize>) -> Result<ScoreTable, OutputError> {
    let mut reader = csv::Reader::from_path(path).map_err(io::Error::from)?;
    let mut table = ScoreTable::default();
    for record in reader.records() {
        let record = record.map_err(io::Error::from)?;
        let mut fields = record.iter();
        table.ids.push(fields.next().unwrap_or_default().to_owned());
        let mut fields = fields.skip(columns.start).take(columns.len());
        let row: Result<Vec<f32>, _> = fields.clone().map(str::parse).collect();
        table.probabilities.push(match row {
            Ok(row) => Some(row),
            Err(_) if fields.all(str::is_empty) => None,
            Err(error) => return Err(io::Error::other(error).into()),
        });
    }
    Ok(table)
}

/// Reads a file of [`write_errors`](super::write_errors).
///
/// # Errors
///
/// The file cannot be read or has other content.
pub fn read_errors(path: &Path) -> Result<Vec<Failure>, OutputError> {
    let mut reader = csv::Reader::from_path(path).map_err(io::Error::from)?;
    let header = reader.headers().map_err(io::Error::from)?;
    if *header != ERRORS_HEADER[..] {
        let text = "is not a list of failed samples; its header must be `Id,File,Error`";
        return Err(io::Error::other(text).into());
    }
    let failure = |record: csv::StringRecord| {
        let field = |at| record.get(at).unwrap_or_default().to_owned();
        Failure {
            id: field(0),
            file: field(1),
            error: field(2),
        }
    };
    let records = reader.records();
    let failures = records.map(|record| Ok(failure(record.map_err(io::Error::from)?)));
    failures.collect()
}

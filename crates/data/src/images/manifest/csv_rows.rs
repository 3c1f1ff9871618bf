//! Rows of a CSV manifest.

use std::path::Path;

use super::{ImageManifestFault, ManifestRows, RowPosition, check_file};

pub(super) fn read<'a>(
    path: &Path,
    mut rows: ManifestRows<'a>,
) -> Result<ManifestRows<'a>, ImageManifestFault> {
    check_file(path)?;
    let mut reader = csv::Reader::from_path(path).map_err(explain)?;
    let header = reader.headers().map_err(explain)?;
    if header.is_empty() {
        return Err(ImageManifestFault::Empty);
    }
    // Spreadsheets write a byte order mark before the first name.
    let names = header
        .iter()
        .map(|name| name.trim_start_matches('\u{feff}'));
    let indices = rows.column_indices(&names.collect::<Vec<_>>())?;
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(explain)? {
        let line = record.position().map_or(0, csv::Position::line);
        let row = RowPosition {
            unit: "line",
            number: line,
        };
        let cell = |index: &usize| record.get(*index).unwrap_or_default();
        rows.push(row, &indices.iter().map(cell).collect::<Vec<_>>())?;
    }
    Ok(rows)
}

fn explain(error: csv::Error) -> ImageManifestFault {
    match error.kind() {
        csv::ErrorKind::Utf8 { pos, .. } => ImageManifestFault::NotUtf8 {
            line: pos.as_ref().map_or(1, csv::Position::line),
        },
        _ => error.into(),
    }
}

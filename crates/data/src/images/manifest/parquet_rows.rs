//! Rows of a Parquet manifest.

use std::fs::File;
use std::path::Path;

use arrow_array::{Array, RecordBatch, StringArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::{ImageManifestFault, ManifestRows, RowPosition, check_file};
use rgby_common::catch_panic;

/// Rows per batch.
const BATCH: usize = 256;

pub(super) fn read<'a>(
    path: &Path,
    rows: ManifestRows<'a>,
) -> Result<ManifestRows<'a>, ImageManifestFault> {
    check_file(path)?;
    // The crate trusts some numbers of a damaged file and panics. The rows are dropped then, so
    // that no inconsistent state is used.
    let read = catch_panic::catch(|| read_rows(path, rows));
    read.unwrap_or(Err(ImageManifestFault::Damaged))
}

fn read_rows<'a>(
    path: &Path,
    mut rows: ManifestRows<'a>,
) -> Result<ManifestRows<'a>, ImageManifestFault> {
    // Ignores the Arrow types in the metadata, such as dictionaries, so that strings are strings.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let file = File::open(path).map_err(ImageManifestFault::Io)?;
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)
        .map_err(ImageManifestFault::Parquet)?;
    let schema = builder.schema().clone();
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let indices = rows.column_indices(&names)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), indices.iter().copied());
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH)
        .build()
        .map_err(ImageManifestFault::Parquet)?;
    let mut number = 0;
    for batch in reader {
        let batch = batch.map_err(ImageManifestFault::ManifestRows)?;
        let columns: Result<Vec<&StringArray>, _> = indices
            .iter()
            .map(|index| strings(&batch, names[*index]))
            .collect();
        let columns = columns?;
        for row in 0..batch.num_rows() {
            number += 1;
            let position = RowPosition {
                unit: "row",
                number,
            };
            let cells = columns.iter().map(|column| {
                let cell = column.is_valid(row).then(|| column.value(row));
                cell.unwrap_or_default()
            });
            rows.push(position, &cells.collect::<Vec<_>>())?;
        }
    }
    Ok(rows)
}

/// Returns a column as strings.
fn strings<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, ImageManifestFault> {
    let not_text = |kind: String| ImageManifestFault::NotText {
        column: name.into(),
        kind,
    };
    let column = batch.column_by_name(name);
    let column = column.ok_or_else(|| not_text("none".into()))?;
    let strings = column.as_any().downcast_ref();
    strings.ok_or_else(|| not_text(column.data_type().to_string()))
}

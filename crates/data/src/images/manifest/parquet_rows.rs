//! The rows of a Parquet manifest.

use std::fs::File;
use std::path::Path;

use arrow_array::{Array, RecordBatch, StringArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use super::{At, ImageManifestFault, ManifestRows, check_file};
use rgby_common::catch_panic;

/// Rows that are decoded at a time.
const BATCH: usize = 256;

pub(super) fn read<'a>(
    path: &Path,
    rows: ManifestRows<'a>,
) -> Result<ManifestRows<'a>, ImageManifestFault> {
    check_file(path)?;
    // The crate takes some numbers of a damaged file at their word, and panics. Nothing is left of
    // the rows then, so that nothing can be seen half-done.
    let read = catch_panic::expected(|| read_rows(path, rows));
    read.unwrap_or(Err(ImageManifestFault::Damaged))
}

fn read_rows<'a>(
    path: &Path,
    mut rows: ManifestRows<'a>,
) -> Result<ManifestRows<'a>, ImageManifestFault> {
    // The types that a writer wished for, such as dictionaries, are of no interest here.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path)?, options)?;
    let schema = builder.schema().clone();
    let names: Vec<&str> = schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let places = rows.places(&names)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), places.iter().copied());
    let reader = builder
        .with_projection(mask)
        .with_batch_size(BATCH)
        .build()?;
    let mut number = 0;
    for batch in reader {
        let batch = batch?;
        let columns: Result<Vec<&StringArray>, _> = places
            .iter()
            .map(|place| texts(&batch, names[*place]))
            .collect();
        let columns = columns?;
        for row in 0..batch.num_rows() {
            number += 1;
            let at = At {
                unit: "row",
                number,
            };
            let cells = columns.iter().map(|column| {
                let cell = column.is_valid(row).then(|| column.value(row));
                cell.unwrap_or_default()
            });
            rows.push(at, &cells.collect::<Vec<_>>())?;
        }
    }
    Ok(rows)
}

/// A column of text.
fn texts<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray, ImageManifestFault> {
    let missing = |kind: String| ImageManifestFault::NotText {
        column: name.into(),
        kind,
    };
    let column = batch.column_by_name(name);
    let column = column.ok_or_else(|| missing("nothing".into()))?;
    let texts = column.as_any().downcast_ref();
    texts.ok_or_else(|| missing(column.data_type().to_string()))
}

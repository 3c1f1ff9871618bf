//! Results as Parquet. Row groups have the same size for all sizes of tables.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Int32Builder, ListBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

use super::super::ScoreTable;
use super::{OutputError, Tables, predicted_classes};
use rgby_common::atomic_file;

/// Rows per group: about 32 MB with a typical number of embeddings.
const GROUP: usize = 4096;

/// Writes `Id` and a list of classes.
pub(super) fn write_predictions(
    path: &Path,
    tables: &mut Tables,
    thresholds: &[f32],
) -> Result<(), OutputError> {
    let item = Arc::new(Field::new("item", DataType::Int32, false));
    let fields = vec![
        id_field(),
        Field::new("Predicted", DataType::List(item.clone()), false),
    ];
    write(path, fields, tables, &|table| {
        let mut lists = ListBuilder::new(Int32Builder::new()).with_field(item.clone());
        for row in &table.probabilities {
            let classes = predicted_classes(row.as_deref().unwrap_or_default(), thresholds);
            lists.append_value(classes.into_iter().map(|class| Some(class as i32)));
        }
        vec![Arc::new(lists.finish())]
    })
}

/// Writes `Id` and one column per class, null if the sample failed.
pub(super) fn write_scores(
    path: &Path,
    tables: &mut Tables,
    classes: &[String],
) -> Result<(), OutputError> {
    let columns = classes
        .iter()
        .map(|class| Field::new(class, DataType::Float32, true));
    let fields = [id_field()].into_iter().chain(columns).collect();
    write(path, fields, tables, &|table| {
        let column = |class: usize| {
            let mut values = Float32Builder::with_capacity(table.ids.len());
            for row in &table.probabilities {
                values.append_option(row.as_ref().map(|row| row[class]));
            }
            Arc::new(values.finish()) as ArrayRef
        };
        (0..classes.len()).map(column).collect()
    })
}

fn id_field() -> Field {
    Field::new("Id", DataType::Utf8, false)
}

/// Writes the tables atomically; `columns` returns the columns after `Id`.
fn write(
    path: &Path,
    fields: Vec<Field>,
    tables: &mut Tables,
    columns: &dyn Fn(&ScoreTable) -> Vec<ArrayRef>,
) -> Result<(), OutputError> {
    let schema = Arc::new(Schema::new(fields));
    let mut batches = tables.map(|table| {
        let table = table?;
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values(&table.ids));
        let columns = [ids].into_iter().chain(columns(&table)).collect();
        RecordBatch::try_new(schema.clone(), columns).map_err(io::Error::other)
    });
    Ok(write_batches(path, &schema, &mut batches)?)
}

/// Writes batches atomically.
pub(crate) fn write_batches(
    path: &Path,
    schema: &SchemaRef,
    batches: &mut dyn Iterator<Item = io::Result<RecordBatch>>,
) -> io::Result<()> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(GROUP))
        .build();
    atomic_file::write_atomic_with(path, |file| {
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties));
        let mut writer = writer.map_err(io::Error::other)?;
        for batch in batches {
            writer.write(&batch?).map_err(io::Error::other)?;
        }
        writer.close().map(drop).map_err(io::Error::other)
    })
}

//! Parquet: a string column `Id` and one float column per class.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{ScoreRows, Scores, ScoresFault};
use rgby_common::catch_panic;

pub(super) fn read(path: &Path, classes: Option<&[String]>) -> Result<Scores, ScoresFault> {
    // The crate trusts some numbers of a damaged file and panics.
    catch_panic::catch(|| read_file(path, classes))
        .unwrap_or_else(|_| Err(ScoresFault::Parquet("the file is damaged".into())))
}

fn read_file(path: &Path, classes: Option<&[String]>) -> Result<Scores, ScoresFault> {
    let unreadable = |error: &dyn std::fmt::Display| ScoresFault::Parquet(error.to_string());
    let file = File::open(path).map_err(|e| unreadable(&e))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(&e))?;
    let fields: Vec<String> = builder
        .schema()
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect();
    match fields.first() {
        Some(first) if first == "Id" && fields.len() > 1 => {}
        first => return Err(ScoresFault::Header(first.cloned().unwrap_or_default())),
    }
    let mut rows = ScoreRows::new(fields[1..].to_vec(), classes)?;
    let mut before = 0;
    for batch in builder.build().map_err(|e| unreadable(&e))? {
        let batch = batch.map_err(|e| unreadable(&e))?;
        push_batch(&mut rows, &batch, before)?;
        before += batch.num_rows();
    }
    rows.finish()
}

fn push_batch(rows: &mut ScoreRows, batch: &RecordBatch, before: usize) -> Result<(), ScoresFault> {
    let ids = strings(batch.column(0))?;
    let columns: Vec<Vec<Option<f32>>> = (1..batch.num_columns())
        .map(|at| floats(batch.column(at), batch.schema().field(at).name()))
        .collect::<Result<_, _>>()?;
    let mut values = Vec::with_capacity(columns.len());
    for (row, id) in ids.iter().enumerate() {
        let place = || format!("row {}", before + row);
        values.clear();
        for (at, column) in columns.iter().enumerate() {
            if let Some(value) = column[row] {
                values.push(value);
            } else if columns.iter().any(|column| column[row].is_some()) {
                return Err(rows.not_a_probability(at, "null".into(), &place));
            }
        }
        let id = id.as_deref().unwrap_or_default().trim();
        rows.push(id, (!values.is_empty()).then_some(&values), &place)?;
    }
    Ok(())
}

fn strings(column: &dyn Array) -> Result<Vec<Option<String>>, ScoresFault> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Ok(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().iter().map(owned).collect(),
        DataType::LargeUtf8 => column.as_string::<i64>().iter().map(owned).collect(),
        DataType::Utf8View => column.as_string_view().iter().map(owned).collect(),
        other => return Err(column_type("Id", other, "strings")),
    })
}

fn floats(column: &dyn Array, name: &str) -> Result<Vec<Option<f32>>, ScoresFault> {
    Ok(match column.data_type() {
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().collect(),
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().iter();
            values.map(|value| value.map(|v| v as f32)).collect()
        }
        other => return Err(column_type(name, other, "float32 or float64")),
    })
}

fn column_type(column: &str, found: &DataType, wanted: &'static str) -> ScoresFault {
    ScoresFault::ColumnType {
        column: column.to_owned(),
        found: found.to_string(),
        wanted,
    }
}

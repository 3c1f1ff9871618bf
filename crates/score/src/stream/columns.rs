//! Columns of a request.

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};

use super::{ID, StreamError};

/// Indices of the columns of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestColumns {
    pub(super) id: usize,
    /// One per stain.
    pub(super) stains: Vec<usize>,
    pub(super) kind: ColumnKind,
}

/// Content of the image columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnKind {
    /// Bytes of image files.
    Bytes,
    /// Paths of image files.
    Paths,
}

impl RequestColumns {
    /// Finds the columns; others are ignored.
    pub(super) fn of(schema: &Schema, stains: &[String]) -> Result<Self, StreamError> {
        let names: Vec<_> = stains.iter().map(|stain| format!("`{stain}`")).collect();
        let names = names.join(", ");
        let wanted = format!("there must be `id` (utf8) and, binary or utf8, {names}");
        let find = |name: &str| {
            let fields = schema.fields().iter().enumerate();
            let mut found = fields.filter(|(_, field)| field.name() == name);
            let place = found.next().map(|(place, _)| place);
            let name = name.to_owned();
            if found.next().is_some() {
                return Err(StreamError::DuplicateColumn { name });
            }
            place.ok_or_else(|| StreamError::MissingColumn {
                name,
                found: schema.fields().iter().map(|f| f.name().clone()).collect(),
                wanted: wanted.clone(),
            })
        };
        let id = find(ID)?;
        if kind(schema.field(id)) != Some(ColumnKind::Paths) {
            return Err(wrong(schema.field(id), "make it utf8 or large_utf8"));
        }
        let mut first: Option<(ColumnKind, &String)> = None;
        let mut places = Vec::with_capacity(stains.len());
        for stain in stains {
            let place = find(stain)?;
            let field = schema.field(place);
            let kind = kind(field).ok_or_else(|| {
                wrong(
                    field,
                    "make it binary (files) or utf8 (paths), or the large form of either",
                )
            })?;
            let (of_first, other) = *first.get_or_insert((kind, stain));
            if kind != of_first {
                let (bytes, paths) = match kind {
                    ColumnKind::Bytes => (stain, other),
                    ColumnKind::Paths => (other, stain),
                };
                return Err(StreamError::Mixed {
                    bytes: bytes.clone(),
                    paths: paths.clone(),
                });
            }
            places.push(place);
        }
        Ok(Self {
            id,
            stains: places,
            kind: first.map_or(ColumnKind::Bytes, |(kind, _)| kind),
        })
    }
}

/// Returns the content of a column, if its type is supported.
fn kind(field: &Field) -> Option<ColumnKind> {
    match field.data_type() {
        DataType::Binary | DataType::LargeBinary => Some(ColumnKind::Bytes),
        DataType::Utf8 | DataType::LargeUtf8 => Some(ColumnKind::Paths),
        _ => None,
    }
}

fn wrong(field: &Field, wanted: &'static str) -> StreamError {
    StreamError::WrongType {
        name: field.name().clone(),
        found: field.data_type().to_string(),
        wanted,
    }
}

/// Returns a text, or `None` for null.
pub(super) fn text(batch: &RecordBatch, column: usize, row: usize) -> Option<&str> {
    let cells = batch.column(column);
    if cells.is_null(row) {
        return None;
    }
    match cells.as_string_opt::<i32>() {
        Some(short) => Some(short.value(row)),
        None => cells.as_string_opt::<i64>().map(|long| long.value(row)),
    }
}

/// Returns the bytes of a file, or `None` for null.
pub(super) fn bytes(batch: &RecordBatch, column: usize, row: usize) -> Option<&[u8]> {
    let cells = batch.column(column);
    if row >= cells.len() || cells.is_null(row) {
        return None;
    }
    match cells.as_binary_opt::<i32>() {
        Some(short) => Some(short.value(row)),
        None => cells.as_binary_opt::<i64>().map(|long| long.value(row)),
    }
}

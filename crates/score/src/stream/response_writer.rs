//! What became of each request's samples.

use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::{ERROR, ID, PREDICTED, Request, StreamError};
use crate::Failure;

/// Bytes of an error's text; the path in it is anybody's.
const ERROR_LENGTH: usize = 2000;

/// Writes a batch of answers for each request.
pub struct ResponseWriter<W: Write> {
    writer: StreamWriter<W>,
    schema: SchemaRef,
    classes: usize,
}

/// What became of a request's samples, in their order.
#[derive(Debug, Clone, Copy)]
pub struct ResponseRows<'a> {
    /// A probability for each class, 0–1, or `None` where the sample is among the failures.
    pub probabilities: &'a [Option<Vec<f32>>],
    /// The numbers of the predicted classes, separated by spaces, in the same way.
    pub predicted: &'a [Option<String>],
    /// The samples without probabilities, in order.
    pub failures: &'a [Failure],
}

impl<W: Write> ResponseWriter<W> {
    /// Writes the stream's head, and flushes it: `id` (utf8), a column of each of `classes`
    /// (float32), `predicted` (utf8), `error` (utf8).
    ///
    /// # Errors
    ///
    /// A class is called like one of the other columns, or `to` cannot be written.
    pub fn open(to: W, classes: &[String]) -> Result<Self, StreamError> {
        let others = [ID, PREDICTED, ERROR];
        if let Some(name) = classes.iter().find(|name| others.contains(&name.as_str())) {
            return Err(StreamError::ClassName { name: name.clone() });
        }
        let id = Field::new(ID, DataType::Utf8, false);
        let of_classes = classes
            .iter()
            .map(|class| Field::new(class, DataType::Float32, true));
        let rest = [PREDICTED, ERROR].map(|name| Field::new(name, DataType::Utf8, true));
        let fields: Vec<_> = [id].into_iter().chain(of_classes).chain(rest).collect();
        let schema = Arc::new(Schema::new(fields));
        let mut writer = StreamWriter::try_new(to, &schema).map_err(unwritten)?;
        writer.flush().map_err(unwritten)?;
        Ok(Self {
            writer,
            schema,
            classes: classes.len(),
        })
    }

    /// Writes the answers to a request, and flushes them.
    ///
    /// # Errors
    ///
    /// The stream cannot be written.
    pub fn write(&mut self, request: &Request, scores: ResponseRows) -> Result<(), StreamError> {
        let rows = request.len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.classes + 3);
        columns.push(Arc::new(StringArray::from_iter_values(request.ids())));
        for class in 0..self.classes {
            let mut column = Float32Builder::with_capacity(rows);
            for row in scores.probabilities {
                column.append_option(row.as_ref().map(|row| row[class]));
            }
            columns.push(Arc::new(column.finish()));
        }
        let predicted: StringArray = scores.predicted.iter().map(Option::as_deref).collect();
        columns.push(Arc::new(predicted));
        columns.push(Arc::new(errors(&scores)));
        let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(unwritten)?;
        self.writer.write(&batch).map_err(unwritten)?;
        self.writer.flush().map_err(unwritten)
    }

    /// Ends the stream, and flushes it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(), StreamError> {
        self.writer.finish().map_err(unwritten)?;
        self.writer.flush().map_err(unwritten)
    }
}

/// What is wrong with each sample that has no probabilities.
fn errors(scores: &ResponseRows) -> StringArray {
    let mut failures = scores.failures.iter();
    let mut column = StringBuilder::new();
    for row in scores.probabilities {
        match row {
            Some(_) => column.append_null(),
            None => column.append_option(failures.next().map(said)),
        }
    }
    column.finish()
}

fn said(failure: &Failure) -> String {
    let mut text = match failure.file.as_str() {
        "" => failure.error.clone(),
        file => format!("{file}: {}", failure.error),
    };
    if text.len() > ERROR_LENGTH {
        text.truncate(text.floor_char_boundary(ERROR_LENGTH));
        text.push('…');
    }
    text
}

fn unwritten(error: ArrowError) -> StreamError {
    StreamError::Write(match error {
        ArrowError::IoError(_, error) => error,
        other => io::Error::other(other),
    })
}

//! Writes responses.

use std::io::{self, Write};
use std::sync::Arc;

use arrow_array::builder::{Float32Builder, StringBuilder};
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use super::{ERROR, ID, PREDICTED, Request, StreamError};
use crate::Failure;

/// Maximum length of an error text in bytes; it may contain an untrusted path.
const ERROR_LENGTH: usize = 2000;

/// Writes one record batch per request.
pub struct ResponseWriter<W: Write> {
    writer: StreamWriter<W>,
    schema: SchemaRef,
    classes: usize,
}

/// Results of the samples of a request, in order.
#[derive(Debug, Clone, Copy)]
pub struct ResponseRows<'a> {
    /// One probability per class, 0–1, or `None` if the sample is among the failures.
    pub probabilities: &'a [Option<Vec<f32>>],
    /// Numbers of the predicted classes, separated by spaces, or `None`.
    pub predicted: &'a [Option<String>],
    /// Samples without probabilities, in order.
    pub failures: &'a [Failure],
}

impl<W: Write> ResponseWriter<W> {
    /// Writes and flushes the schema: `id` (utf8), one column per class (float32), `predicted`
    /// (utf8), `error` (utf8).
    ///
    /// # Errors
    ///
    /// A class has the name of another column, or `to` cannot be written.
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

    /// Writes and flushes the response to a request.
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

    /// Writes the end of the stream and flushes it.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(), StreamError> {
        self.writer.finish().map_err(unwritten)?;
        self.writer.flush().map_err(unwritten)
    }
}

/// Returns the error of each sample, or null.
fn errors(scores: &ResponseRows) -> StringArray {
    let mut failures = scores.failures.iter();
    let mut column = StringBuilder::new();
    for row in scores.probabilities {
        match row {
            Some(_) => column.append_null(),
            None => column.append_option(failures.next().map(error_text)),
        }
    }
    column.finish()
}

fn error_text(failure: &Failure) -> String {
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

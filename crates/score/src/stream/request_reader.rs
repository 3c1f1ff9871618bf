//! Reads requests from an untrusted stream of bytes.

use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::ArrowError;

use super::columns::RequestColumns;
use super::error::StreamPosition;
use super::limited_reader::{ByteCounter, LimitedReader};
use super::{MOST_ROWS, Request, StreamError};
use rgby_common::catch_panic;

/// Size of the end-of-stream marker in bytes.
const END: u64 = 8;

/// Reads batches of samples until the stream ends.
#[derive(Debug)]
pub struct RequestReader<R> {
    reader: StreamReader<LimitedReader<R>>,
    columns: RequestColumns,
    stains: Arc<[String]>,
    counter: Rc<ByteCounter>,
    limit: u64,
    /// Number of batches started.
    count: u64,
}

impl<R: Read> RequestReader<R> {
    /// Reads the schema of a stream of samples with these `stains`. Encoded batches have at most
    /// `limit` bytes. Returns `None` for an empty stream.
    ///
    /// A batch takes about as much memory as it has bytes, and twice that while it is read.
    ///
    /// # Errors
    ///
    /// The stream is not an Arrow IPC stream, or a column is missing or has an unsupported type.
    pub fn open(from: R, stains: &[String], limit: u64) -> Result<Option<Self>, StreamError> {
        let counter = Rc::new(ByteCounter::default());
        let limited = LimitedReader {
            from,
            counter: counter.clone(),
            limit,
        };
        let reader = match decoded(|| StreamReader::try_new(limited, None)) {
            Err(_) if counter.taken.get() == 0 => return Ok(None),
            reader => {
                reader.map_err(|reason| fault(reason, &counter, limit, StreamPosition::Head))?
            }
        };
        Ok(Some(Self {
            columns: RequestColumns::of(&reader.schema(), stains)?,
            stains: stains.into(),
            reader,
            counter,
            limit,
            count: 0,
        }))
    }

    fn request(&mut self, batch: RecordBatch) -> Result<Request, StreamError> {
        let place = StreamPosition::Batch(self.count);
        let rows = batch.num_rows();
        if rows > MOST_ROWS {
            return Err(StreamError::TooManyRows { place, rows });
        }
        Request::new(batch, self.columns.clone(), self.stains.clone(), place)
    }
}

impl<R: Read> Iterator for RequestReader<R> {
    type Item = Result<Request, StreamError>;

    /// Returns the next batch. Must not be called again after an error.
    fn next(&mut self) -> Option<Self::Item> {
        self.counter.taken.set(0);
        self.count += 1;
        let reader = &mut self.reader;
        let batch = decoded(|| reader.next().transpose());
        let (taken, place) = (self.counter.taken.get(), StreamPosition::Batch(self.count));
        match batch {
            Ok(Some(batch)) => Some(self.request(batch)),
            Ok(None) if taken == 0 || taken == END => None,
            Ok(None) => Some(Err(StreamError::Truncated { place })),
            Err(reason) => Some(Err(fault(reason, &self.counter, self.limit, place))),
        }
    }
}

/// Failure of the decoder.
enum RequestFault {
    Arrow(ArrowError),
    /// The decoder panicked on invalid bytes.
    Panicked,
}

fn decoded<T>(work: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, RequestFault> {
    let done = catch_panic::catch(work);
    done.map_err(|_| RequestFault::Panicked)?
        .map_err(RequestFault::Arrow)
}

fn fault(
    fault: RequestFault,
    counter: &ByteCounter,
    limit: u64,
    place: StreamPosition,
) -> StreamError {
    if counter.taken.get() >= limit {
        let limit = limit >> 20;
        return StreamError::TooLarge { place, limit };
    }
    // Bytes that are not Arrow IPC end before the schema is complete.
    if counter.ended.get() && place != StreamPosition::Head {
        return StreamError::Truncated { place };
    }
    StreamError::Malformed {
        place,
        reason: match fault {
            RequestFault::Arrow(error) => error.to_string(),
            RequestFault::Panicked => "a message contradicts itself".into(),
        },
    }
}

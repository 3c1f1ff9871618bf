//! Requests from a stream of bytes, which may be anything.

use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_schema::ArrowError;

use super::columns::RequestColumns;
use super::error::StreamPosition;
use super::metered::{Meter, Metered};
use super::{Request, StreamError};
use rgby_common::catch_panic;

/// Samples that a batch may have: what is kept for each must not grow without bounds where its
/// images are mere names.
pub const MOST_ROWS: usize = 65_536;

/// Bytes of the mark that ends a stream.
const END: u64 = 8;

/// Reads batches of samples until the stream ends.
#[derive(Debug)]
pub struct RequestReader<R> {
    reader: StreamReader<Metered<R>>,
    columns: RequestColumns,
    stains: Arc<[String]>,
    meter: Rc<Meter>,
    limit: u64,
    /// How many were begun.
    count: u64,
}

impl<R: Read> RequestReader<R> {
    /// Reads the head of a stream whose batches have at most `limit` bytes, encoded, and whose
    /// samples have these `stains`. There is none if the stream is empty.
    ///
    /// A batch takes about as much memory as it has bytes; twice that while it is read.
    ///
    /// # Errors
    ///
    /// The stream is no Arrow IPC stream, or a column is missing or of a type that means nothing.
    pub fn open(from: R, stains: &[String], limit: u64) -> Result<Option<Self>, StreamError> {
        let meter = Rc::new(Meter::default());
        let metered = Metered {
            from,
            meter: meter.clone(),
            limit,
        };
        let reader = match decoded(|| StreamReader::try_new(metered, None)) {
            Err(_) if meter.taken.get() == 0 => return Ok(None),
            reader => {
                reader.map_err(|reason| fault(reason, &meter, limit, StreamPosition::Head))?
            }
        };
        Ok(Some(Self {
            columns: RequestColumns::of(&reader.schema(), stains)?,
            stains: stains.into(),
            reader,
            meter,
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

    /// The next batch; none should be asked for after an error.
    fn next(&mut self) -> Option<Self::Item> {
        self.meter.taken.set(0);
        self.count += 1;
        let reader = &mut self.reader;
        let batch = decoded(|| reader.next().transpose());
        let (taken, place) = (self.meter.taken.get(), StreamPosition::Batch(self.count));
        match batch {
            Ok(Some(batch)) => Some(self.request(batch)),
            Ok(None) if taken == 0 || taken == END => None,
            Ok(None) => Some(Err(StreamError::Truncated { place })),
            Err(reason) => Some(Err(fault(reason, &self.meter, self.limit, place))),
        }
    }
}

/// What went wrong in the decoder.
enum RequestFault {
    Said(ArrowError),
    /// It panicked, which bytes must not make it do; but they are anybody's.
    Panicked,
}

fn decoded<T>(work: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, RequestFault> {
    let done = catch_panic::catch(work);
    done.map_err(|_| RequestFault::Panicked)?
        .map_err(RequestFault::Said)
}

fn fault(fault: RequestFault, meter: &Meter, limit: u64, place: StreamPosition) -> StreamError {
    if meter.taken.get() >= limit {
        let limit = limit >> 20;
        return StreamError::TooLarge { place, limit };
    }
    // What never was such a stream ends before its schema is whole.
    if meter.ended.get() && place != StreamPosition::Head {
        return StreamError::Truncated { place };
    }
    StreamError::Malformed {
        place,
        reason: match fault {
            RequestFault::Said(error) => error.to_string(),
            RequestFault::Panicked => "a message contradicts itself".into(),
        },
    }
}

//! Reads request bodies within limits on size, time and total memory.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::unread_body::UnreadBody;
use crate::{ServeError, Trace};

/// Unit of the memory budget in bytes.
const BLOCK: usize = 1024;

/// Limits of request bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Maximum size of a body in bytes, decompressed.
    pub max_body: usize,
    /// Maximum total size of concurrent bodies in bytes; at least `max_body`.
    pub max_bodies: usize,
    /// Maximum time for reading a body.
    pub timeout: Duration,
}

/// Reads bodies and accounts for their memory.
#[derive(Debug)]
pub(crate) struct BodyReader {
    limits: BodyLimits,
    /// Free memory in blocks.
    budget: Arc<Semaphore>,
}

/// A complete body. Dropping it returns its memory to the budget.
#[derive(Debug)]
pub(crate) struct ReadBody {
    pub bytes: Bytes,
    _reserved: OwnedSemaphorePermit,
}

impl BodyReader {
    pub fn new(limits: BodyLimits) -> Self {
        let blocks = limits.max_bodies.max(limits.max_body).div_ceil(BLOCK);
        let blocks = blocks.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let budget = Arc::new(Semaphore::new(blocks));
        Self { limits, budget }
    }

    pub fn limits(&self) -> BodyLimits {
        self.limits
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// The body is too large, too slow or incomplete, or the memory budget is exhausted.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<ReadBody, ServeError> {
        let reserved = self.reserve(content_length(headers))?;
        self.with_timeout(async {
            let bytes = collect(body, self.limits.max_body).await?;
            Ok(ReadBody {
                bytes,
                _reserved: reserved,
            })
        })
        .await
    }

    /// Reads a body that starts with its length: `length` parses it from the first `N` bytes.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); also if the body is shorter or longer than its length field.
    pub async fn read_framed<const N: usize>(
        &self,
        mut body: Body,
        length: impl Fn([u8; N]) -> usize,
    ) -> Result<ReadBody, ServeError> {
        let read = async {
            let mut bytes = BytesMut::new();
            while bytes.len() < N {
                let Some(frame) = body.frame().await else {
                    break;
                };
                let frame = frame.map_err(|error| unreadable(&error))?;
                bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
            }
            let head = bytes.first_chunk().copied();
            let length = N.saturating_add(head.map_or(0, length));
            let reserved = self.reserve(Some(length))?;
            let remainder = collect(body, length.saturating_sub(bytes.len())).await;
            match remainder {
                Ok(remainder) if bytes.len() + remainder.len() == length => {
                    bytes.extend_from_slice(&remainder);
                }
                Ok(_) | Err(ServeError::TooLarge { .. }) => {
                    return Err(ServeError::Invalid(format!(
                        "the size of the message differs from its length field of {length} bytes; \
                         send exactly one message"
                    )));
                }
                Err(error) => return Err(error),
            }
            Ok(ReadBody {
                bytes: bytes.freeze(),
                _reserved: reserved,
            })
        };
        self.with_timeout(read).await
    }

    async fn with_timeout(
        &self,
        read: impl Future<Output = Result<ReadBody, ServeError>>,
    ) -> Result<ReadBody, ServeError> {
        let (limit, start) = (self.limits.timeout, Instant::now());
        let read = timeout(limit, read)
            .await
            .map_err(|_| ServeError::TooSlow(limit))??;
        Trace::current().stage("read", start, &[("rgby.bytes", read.bytes.len())]);
        Ok(read)
    }

    /// Reads and discards the part of a body that a handler has not read.
    pub(super) async fn discard(&self, body: UnreadBody) {
        let BodyLimits {
            max_body, timeout, ..
        } = self.limits;
        body.discard(max_body, timeout).await;
    }

    /// Reserves memory for a body of a known length, or of the maximum length.
    fn reserve(&self, length: Option<usize>) -> Result<OwnedSemaphorePermit, ServeError> {
        let limit = self.limits.max_body;
        let length = length.unwrap_or(limit);
        if length > limit {
            return Err(ServeError::TooLarge { limit });
        }
        // `length` is at most `max_body`, which fits into the budget.
        let blocks = u32::try_from(length.div_ceil(BLOCK)).unwrap_or(u32::MAX);
        let reserved = self.budget.clone().try_acquire_many_owned(blocks);
        reserved.map_err(|_| ServeError::Overloaded {
            what: "the memory for request bodies is exhausted".into(),
            retry_after: Duration::from_secs(1),
        })
    }
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, ServeError> {
    let read = Limited::new(body, limit).collect().await;
    let read = read.map_err(|error| {
        if error.is::<LengthLimitError>() {
            ServeError::TooLarge { limit }
        } else {
            unreadable(&*error)
        }
    })?;
    Ok(read.to_bytes())
}

fn unreadable(error: &dyn Error) -> ServeError {
    ServeError::Invalid(format!("cannot read the request body: {error}"))
}

/// Returns the `Content-Length`; `None` for a chunked or compressed body.
fn content_length(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    length.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn reader() -> BodyReader {
        BodyReader::new(BodyLimits {
            max_body: 4096,
            max_bodies: 8192,
            timeout: Duration::from_millis(50),
        })
    }

    #[tokio::test]
    async fn bodies_are_limited_individually_and_in_total() {
        let reader = reader();
        let none = HeaderMap::new();
        let read = |length: usize| reader.read(&none, Body::from(vec![0; length]));
        let refused = read(4097).await.unwrap_err();
        assert_eq!(refused, ServeError::TooLarge { limit: 4096 });
        let first = read(4096).await.unwrap();
        assert_eq!(first.bytes.len(), 4096);
        let _second = read(0).await.unwrap();
        let refused = read(1).await.unwrap_err();
        assert_eq!(refused.cause(), "overloaded");
        drop(first);
        read(1).await.unwrap();
    }

    #[tokio::test]
    async fn content_length_is_only_an_upper_bound() {
        let reader = reader();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "9999999999999".parse().unwrap());
        let refused = reader.read(&headers, Body::empty()).await.unwrap_err();
        assert_eq!(refused.cause(), "too_large");
        headers.insert(header::CONTENT_LENGTH, "10".parse().unwrap());
        let read = reader.read(&headers, Body::from("four")).await.unwrap();
        assert_eq!(read.bytes, "four");
    }

    #[tokio::test]
    async fn a_framed_body_reserves_its_length_and_must_have_it() {
        let reader = reader();
        let read = |bytes: Vec<u8>| {
            reader.read_framed(Body::from(bytes), |[length]: [u8; 1]| {
                usize::from(length) * 256
            })
        };
        let read_whole = read([vec![2], vec![7; 512]].concat()).await.unwrap();
        assert_eq!(read_whole.bytes.len(), 513);
        let too_long = [vec![0], vec![7; 5000]].concat();
        for wrong in [
            vec![],
            vec![1],
            vec![0, 1],
            [vec![2], vec![7; 511]].concat(),
            too_long,
        ] {
            assert_eq!(read(wrong).await.unwrap_err().cause(), "invalid");
        }
        let refused = read(vec![16]).await.unwrap_err();
        assert_eq!(refused, ServeError::TooLarge { limit: 4096 });
        let _held = read([vec![15], vec![7; 3840]].concat()).await.unwrap();
        let full = read([vec![14], vec![7; 3584]].concat()).await.unwrap_err();
        assert_eq!(full.cause(), "overloaded");
    }

    #[tokio::test]
    async fn a_framed_body_that_does_not_arrive_times_out() {
        let reader = reader();
        let endless =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
        let read = reader.read_framed(endless, |[length]: [u8; 1]| usize::from(length));
        assert_eq!(read.await.unwrap_err().cause(), "slow");
    }
}

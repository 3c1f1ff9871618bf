//! Reading a request's body: no larger, no slower and no more of them than there is room for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::leftover::Leftover;
use crate::serve::{ServeError, Trace};

/// Memory is shared out in blocks of so many bytes.
const BLOCK: usize = 1024;

/// What bodies may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Most bytes of a body, decompressed.
    pub max_body: usize,
    /// Most bytes of all bodies at a time; at least `max_body`.
    pub max_bodies: usize,
    /// How long a body may take to arrive.
    pub timeout: Duration,
}

/// Room for bodies.
#[derive(Debug)]
pub(super) struct Bodies {
    limits: BodyLimits,
    room: Arc<Semaphore>,
}

/// A body that was read, and the room that it takes until it is dropped.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Bodies {
    pub(super) fn new(limits: BodyLimits) -> Self {
        let blocks = limits.max_bodies.max(limits.max_body).div_ceil(BLOCK);
        let blocks = blocks.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let room = Arc::new(Semaphore::new(blocks));
        Self { limits, room }
    }

    pub(super) fn limits(&self) -> BodyLimits {
        self.limits
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// It is too large or too slow, breaks off, or there is no room for it now.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Read, ServeError> {
        let limit = self.limits.max_body;
        let room = self.reserve(announced(headers))?;
        let began = Instant::now();
        let read = timeout(self.limits.timeout, Limited::new(body, limit).collect()).await;
        let read = read.map_err(|_| ServeError::TooSlow(self.limits.timeout))?;
        let read = read.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return ServeError::TooLarge { limit };
            }
            ServeError::Invalid(format!("the request's body cannot be read: {error}"))
        })?;
        let bytes = read.to_bytes();
        Trace::current().stage("read", began, &[("rgby.bytes", bytes.len())]);
        Ok(Read { bytes, _room: room })
    }

    /// Reads and forgets what a handler left of a body.
    pub(super) async fn forget(&self, leftover: Leftover) {
        let BodyLimits {
            max_body, timeout, ..
        } = self.limits;
        leftover.forget(max_body, timeout).await;
    }

    /// Takes room for a body of that length, or of any.
    fn reserve(&self, length: Option<usize>) -> Result<OwnedSemaphorePermit, ServeError> {
        let limit = self.limits.max_body;
        let length = length.unwrap_or(limit);
        if length > limit {
            return Err(ServeError::TooLarge { limit });
        }
        // At most `max_body`, which was checked to fit.
        let blocks = u32::try_from(length.div_ceil(BLOCK)).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(blocks);
        room.map_err(|_| ServeError::Overloaded {
            what: "too many bytes of requests are being read".into(),
            retry_after: Duration::from_secs(1),
        })
    }
}

/// The length that a body will have; none if it comes in chunks or compressed.
fn announced(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    length.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies() -> Bodies {
        Bodies::new(BodyLimits {
            max_body: 4096,
            max_bodies: 8192,
            timeout: Duration::from_millis(50),
        })
    }

    #[tokio::test]
    async fn bodies_are_bounded_one_by_one_and_together() {
        let bodies = bodies();
        let none = HeaderMap::new();
        let read = |length: usize| bodies.read(&none, Body::from(vec![0; length]));
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
    async fn a_length_that_is_announced_is_believed_only_as_a_bound() {
        let bodies = bodies();
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "9999999999999".parse().unwrap());
        let refused = bodies.read(&headers, Body::empty()).await.unwrap_err();
        assert_eq!(refused.cause(), "too_large");
        headers.insert(header::CONTENT_LENGTH, "10".parse().unwrap());
        let read = bodies.read(&headers, Body::from("four")).await.unwrap();
        assert_eq!(read.bytes, "four");
    }
}

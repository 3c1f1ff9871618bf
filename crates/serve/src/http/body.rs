//! Reading a request's body: no larger, no slower and no more of them than there is room for.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::leftover::Leftover;
use crate::{ServeError, Trace};

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
pub(crate) struct Bodies {
    limits: BodyLimits,
    room: Arc<Semaphore>,
}

/// A body that was read, and the room that it takes until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadBody {
    pub bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

impl Bodies {
    pub fn new(limits: BodyLimits) -> Self {
        let blocks = limits.max_bodies.max(limits.max_body).div_ceil(BLOCK);
        let blocks = blocks.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        let room = Arc::new(Semaphore::new(blocks));
        Self { limits, room }
    }

    pub fn limits(&self) -> BodyLimits {
        self.limits
    }

    /// Reads a body.
    ///
    /// # Errors
    ///
    /// It is too large or too slow, breaks off, or there is no room for it now.
    pub async fn read(&self, headers: &HeaderMap, body: Body) -> Result<ReadBody, ServeError> {
        let room = self.reserve(announced(headers))?;
        self.in_time(async {
            let bytes = collect(body, self.limits.max_body).await?;
            Ok(ReadBody { bytes, _room: room })
        })
        .await
    }

    /// Reads a body whose length stands in its first `N` bytes, from which `length` reads it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); it is shorter or longer than it says.
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
            let room = self.reserve(Some(length))?;
            let rest = collect(body, length.saturating_sub(bytes.len())).await;
            match rest {
                Ok(rest) if bytes.len() + rest.len() == length => bytes.extend_from_slice(&rest),
                Ok(_) | Err(ServeError::TooLarge { .. }) => {
                    return Err(ServeError::Invalid(format!(
                        "the message does not have the {length} bytes that it says; send one \
                         whole message"
                    )));
                }
                Err(error) => return Err(error),
            }
            Ok(ReadBody {
                bytes: bytes.freeze(),
                _room: room,
            })
        };
        self.in_time(read).await
    }

    async fn in_time(
        &self,
        read: impl Future<Output = Result<ReadBody, ServeError>>,
    ) -> Result<ReadBody, ServeError> {
        let (most, began) = (self.limits.timeout, Instant::now());
        let read = timeout(most, read)
            .await
            .map_err(|_| ServeError::TooSlow(most))??;
        Trace::current().stage("read", began, &[("rgby.bytes", read.bytes.len())]);
        Ok(read)
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
    ServeError::Invalid(format!("the request's body cannot be read: {error}"))
}

/// The length that a body will have; none if it comes in chunks or compressed.
fn announced(headers: &HeaderMap) -> Option<usize> {
    let length = headers.get(header::CONTENT_LENGTH)?.to_str().ok()?;
    length.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

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

    #[tokio::test]
    async fn a_framed_body_takes_the_room_that_it_says_and_no_more() {
        let bodies = bodies();
        let read = |bytes: Vec<u8>| {
            bodies.read_framed(Body::from(bytes), |[length]: [u8; 1]| {
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
    async fn a_framed_body_that_does_not_come_is_not_waited_for() {
        let bodies = bodies();
        let endless =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, Infallible>>());
        let read = bodies.read_framed(endless, |[length]: [u8; 1]| usize::from(length));
        assert_eq!(read.await.unwrap_err().cause(), "slow");
    }
}

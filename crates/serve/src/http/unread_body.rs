//! Reads the rest of a rejected request's body before the response is sent.
//!
//! A client that sends the headers first and the body after them would otherwise find the
//! connection closed, and never read the error response.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{Version, header};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

/// A body that stays readable after its handler has returned.
struct SharedBody(Arc<Mutex<Body>>);

/// Access to the part of a body that the handler has not read.
pub(super) struct UnreadBody(Option<Arc<Mutex<Body>>>);

/// Shares a request's body between its handler and the returned [`UnreadBody`].
pub(super) fn share(request: Request) -> (Request, UnreadBody) {
    // HTTP/2 resets single streams, and a client with `Expect: 100-continue` has sent no body yet.
    let not_needed = request.version() >= Version::HTTP_2
        || request.headers().contains_key(header::EXPECT)
        || request.body().is_end_stream();
    if not_needed {
        return (request, UnreadBody(None));
    }
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let shared = Body::new(SharedBody(body.clone()));
    (Request::from_parts(parts, shared), UnreadBody(Some(body)))
}

impl UnreadBody {
    /// Reads and discards the rest of the body, limited by size in bytes and time.
    pub(super) async fn discard(self, max_len: usize, max_time: Duration) {
        let Some(body) = self.0 else { return };
        let mut body = SharedBody(body);
        let discard = async {
            let mut remaining = max_len;
            while let Some(Ok(frame)) = body.frame().await {
                let len = frame.data_ref().map_or(0, Bytes::len);
                let Some(after) = remaining.checked_sub(len) else {
                    return;
                };
                remaining = after;
            }
        };
        // Beyond the limits, hyper closes the connection.
        let _ = timeout(max_time, discard).await;
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Pin::new(&mut *body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        HttpBody::size_hint(&*body)
    }
}

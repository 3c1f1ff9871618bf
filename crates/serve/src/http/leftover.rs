//! What a refused request still has to say.
//!
//! A client that sends its head first and its body after it would find the connection closed, and
//! never read why, if the answer came without the body being read. So what a handler leaves of a
//! body is read and forgotten before the answer is sent.

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

/// A body that a handler reads, and that can still be read when the handler is done.
struct Lent(Arc<Mutex<Body>>);

/// The other end of a body that was lent.
pub(super) struct Leftover(Option<Arc<Mutex<Body>>>);

/// Lends a request's body to its handler.
pub(super) fn lend(request: Request) -> (Request, Leftover) {
    // HTTP/2 ends a stream by itself; who waits for leave to send has sent nothing.
    let needless = request.version() >= Version::HTTP_2
        || request.headers().contains_key(header::EXPECT)
        || request.body().is_end_stream();
    if needless {
        return (request, Leftover(None));
    }
    let (parts, body) = request.into_parts();
    let body = Arc::new(Mutex::new(body));
    let lent = Body::new(Lent(body.clone()));
    (Request::from_parts(parts, lent), Leftover(Some(body)))
}

impl Leftover {
    /// Reads and forgets what is left, so many bytes and so long at most.
    pub(super) async fn forget(self, most: usize, time: Duration) {
        let Some(body) = self.0 else { return };
        let mut rest = Lent(body);
        let forget = async {
            let mut left = most;
            while let Some(Ok(frame)) = rest.frame().await {
                let len = frame.data_ref().map_or(0, Bytes::len);
                let Some(less) = left.checked_sub(len) else {
                    return;
                };
                left = less;
            }
        };
        // Beyond that the connection is closed.
        let _ = timeout(time, forget).await;
    }
}

impl HttpBody for Lent {
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

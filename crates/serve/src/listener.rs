//! Connections: accept, TLS handshake, limits, deadlines and shutdown.
//!
//! `tls-listener` 0.11 and `axum-server` 0.9 were considered and refused. `tls-listener` accepts
//! connections and runs their handshakes without a limit, so the connection limit would not hold
//! for clients that delay the handshake. `axum-server` has no connection limit either; adding one
//! needs a listener and a stream type, which together are about as long as this module. Neither
//! responds in plain HTTP to a client that connects without TLS.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

use super::Tls;

/// Maximum number of headers of a request.
const MAX_HEADERS: usize = 100;
/// Maximum size of a request line with headers, in bytes.
const MAX_HEAD: usize = 32 << 10;
/// Maximum number of concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Interval and timeout of HTTP/2 keep-alive pings.
const PING: Duration = Duration::from_secs(20);

/// Limits of the connections of one listen address.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Maximum number of concurrent connections; further clients wait to be accepted.
    pub max_connections: usize,
    /// Maximum time for the TLS handshake, and again for the headers of a request.
    pub head_timeout: Duration,
}

impl ConnectionLimits {
    /// Serves connections until `closing` is true. Then ends each connection after its current
    /// request, and returns when all have ended.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        router: Router,
        closing: watch::Receiver<bool>,
    ) {
        let permits = Arc::new(Semaphore::new(self.max_connections));
        let mut open = JoinSet::new();
        let mut closed = closing.clone();
        let mut closed = pin!(closed.wait_for(|closing| *closing));
        loop {
            let next = async {
                // The semaphore is never closed.
                let permit = permits.clone().acquire_owned().await.ok();
                (accept(&listener).await, permit)
            };
            let (stream, permit) = tokio::select! {
                next = next => next,
                _ = &mut closed => break,
            };
            // Without Nagle's algorithm, which delays small responses.
            let _ = stream.set_nodelay(true);
            let tls = tls.clone();
            let router = router.clone();
            let closing = closing.clone();
            open.spawn(async move {
                match tls {
                    None => self.connection(stream, router, closing).await,
                    Some(tls) => {
                        if let Some(stream) = self.handshake(&tls, stream, closing.clone()).await {
                            self.connection(stream, router, closing).await;
                        }
                    }
                }
                drop(permit);
            });
            // Removes finished tasks, so that the set does not grow.
            while open.try_join_next().is_some() {}
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    /// Performs the TLS handshake. Returns `None` if it fails or exceeds the deadline.
    async fn handshake(
        self,
        tls: &Tls,
        stream: TcpStream,
        mut closing: watch::Receiver<bool>,
    ) -> Option<TlsStream<TcpStream>> {
        let accepted = tokio::select! {
            accepted = timeout(self.head_timeout, tls.accept(stream)) => accepted.ok()?,
            _ = closing.wait_for(|closing| *closing) => return None,
        };
        let failed = |error: &io::Error| tracing::debug!(%error, "the TLS handshake failed");
        accepted.inspect_err(failed).ok()
    }

    async fn connection(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        router: Router,
        mut closing: watch::Receiver<bool>,
    ) {
        let got_request = Arc::new(AtomicBool::new(false));
        let flag = got_request.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            flag.store(true, Ordering::Relaxed);
            let router = router.clone();
            async move {
                let response: Result<_, Infallible> = router.oneshot(request.map(Body::new)).await;
                response
            }
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut deadline = pin!(tokio::time::sleep(self.head_timeout));
        let mut deadline_pending = true;
        let mut shutting_down = false;
        loop {
            tokio::select! {
                // hyper itself responds to protocol errors.
                _ = connection.as_mut() => return,
                // hyper's header timeout starts only after it has detected the HTTP version, so
                // the first request needs this deadline.
                () = deadline.as_mut(), if deadline_pending => {
                    deadline_pending = false;
                    if !got_request.load(Ordering::Relaxed) {
                        return;
                    }
                }
                _ = closing.wait_for(|closing| *closing), if !shutting_down => {
                    shutting_down = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD);
        // hyper's defaults end a connection that resets streams too fast (CVE-2023-44487).
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        builder
    }
}

/// Returns the next connection. Errors of single connections are skipped.
async fn accept(listener: &TcpListener) -> TcpStream {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_connection_error(&error) => {}
            Err(error) => {
                // For example too many open files, which is often temporary.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_connection_error(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

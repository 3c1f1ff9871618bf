//! Connections: how many, with TLS or without, how long they may say nothing, and how they end.

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

/// Most headers of a request.
const MAX_HEADERS: usize = 100;
/// Most bytes of a request's line and headers.
const MAX_HEAD: usize = 32 << 10;
/// Most requests that one HTTP/2 connection has under way.
const MAX_STREAMS: u32 = 100;
/// How often an HTTP/2 client that says nothing is asked whether it is still there.
const PING: Duration = Duration::from_secs(20);

/// What connections may do.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Most connections at a time; more wait to be accepted.
    pub most: usize,
    /// How long a client may take to shake hands, and to send a request's head.
    pub head_timeout: Duration,
}

impl Connections {
    /// Serves connections until `closing` is true, then ends each after the request that it has
    /// under way, and returns when all are gone.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<Tls>>,
        router: Router,
        closing: watch::Receiver<bool>,
    ) {
        let room = Arc::new(Semaphore::new(self.most));
        let mut open = JoinSet::new();
        let mut closed = closing.clone();
        let mut closed = pin!(closed.wait_for(|closing| *closing));
        loop {
            let next = async {
                // The semaphore is never closed.
                let permit = room.clone().acquire_owned().await.ok();
                (accept(&listener).await, permit)
            };
            let (stream, permit) = tokio::select! {
                next = next => next,
                _ = &mut closed => break,
            };
            // Small answers should not wait for the next one to fill a packet.
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
            // Tasks that ended are forgotten as they come.
            while open.try_join_next().is_some() {}
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    /// `None` for a client that cannot do it, or takes too long.
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
        let failed = |error: &io::Error| tracing::debug!(%error, "no TLS with a client");
        accepted.inspect_err(failed).ok()
    }

    async fn connection(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        router: Router,
        mut closing: watch::Receiver<bool>,
    ) {
        let asked = Arc::new(AtomicBool::new(false));
        let seen = asked.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            seen.store(true, Ordering::Relaxed);
            let router = router.clone();
            async move {
                let answer: Result<_, Infallible> = router.oneshot(request.map(Body::new)).await;
                answer
            }
        });
        let builder = self.builder();
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut silent = pin!(tokio::time::sleep(self.head_timeout));
        let mut watching = true;
        let mut leaving = false;
        loop {
            tokio::select! {
                // A client that breaks the protocol or the connection is told so by hyper.
                _ = connection.as_mut() => return,
                // hyper's own timeout begins when it knows which HTTP this is.
                () = silent.as_mut(), if watching => {
                    watching = false;
                    if !asked.load(Ordering::Relaxed) {
                        return;
                    }
                }
                _ = closing.wait_for(|closing| *closing), if !leaving => {
                    leaving = true;
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
        // hyper's own defaults end a connection that resets streams faster than they are taken.
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

/// The next connection. What goes wrong with one is no reason to leave the others.
async fn accept(listener: &TcpListener) -> TcpStream {
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                // Too many open files: it may pass.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

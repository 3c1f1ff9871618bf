//! Runs a server: listen, load the models, serve requests, drain, shut down.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::{
    ApiKeyError, ApiKeys, Batching, BodyLimits, ConnectionLimits, Engines, Metrics, ModelLoader,
    ModelSource, Repository, RequestGate, ServeError, Service, Tls, TlsError, TlsFiles, grpc,
    one_line, rest,
};

/// How long a drained server still responds with 503, for clients whose next request is already on
/// its way.
const LINGER: Duration = Duration::from_millis(250);

/// Configuration of a server.
#[derive(Debug)]
pub struct Options {
    /// HTTP listen address; port 0 selects a free port.
    pub addr: SocketAddr,
    /// gRPC listen address; `None` disables gRPC.
    pub grpc_addr: Option<SocketAddr>,
    pub source: ModelSource,
    pub engines: Engines,
    pub batching: Batching,
    /// Threads that parse, decode and resize images.
    pub decode_threads: usize,
    /// Maximum processing time of a request.
    pub timeout: Duration,
    /// Maximum time to finish accepted requests on shutdown.
    pub drain: Duration,
    pub bodies: BodyLimits,
    pub connections: ConnectionLimits,
    /// Host names that browsers may use for a loopback address, in addition to `localhost`.
    pub host_names: Vec<String>,
    /// File of API keys; `None` accepts requests without a key.
    pub api_key_file: Option<PathBuf>,
    /// Certificate and key; `None` disables TLS.
    pub tls: Option<TlsFiles>,
}

/// A control signal to a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Reload the models, the API keys and the certificate.
    Reload,
    /// Finish the accepted requests, then shut down. A second one shuts down immediately.
    Stop,
}

/// The addresses that a server listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddresses {
    pub http: SocketAddr,
    pub grpc: Option<SocketAddr>,
}

/// Result of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Number of accepted requests that did not finish within the drain time.
    pub cut_off: usize,
    /// Remaining drain time.
    pub left: Duration,
}

/// A server could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(
        "{flag} {addr}: cannot listen: {cause}\nhint: stop the program that uses the address, or \
         choose another one"
    )]
    Listen {
        /// The flag that sets the address.
        flag: &'static str,
        addr: SocketAddr,
        cause: io::Error,
    },
    #[error(transparent)]
    Keys(#[from] ApiKeyError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Load(#[from] ServeError),
    #[error("cannot start the threads that prepare images")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Runs a server until a signal stops it. Calls `ready` with the listen addresses once the server
/// accepts inference requests.
///
/// # Errors
///
/// Returns [`RunError`] only during startup; afterwards only a signal ends the server.
pub async fn run(
    options: Options,
    mut signals: mpsc::Receiver<Signal>,
    ready: impl FnOnce(ListenAddresses),
) -> Result<ShutdownReport, RunError> {
    let secrets = ServerSecrets::read(options.api_key_file.as_deref(), options.tls)?;
    let (listener, http) = listen("--addr", options.addr).await?;
    secrets.warn(http);
    let grpc = match options.grpc_addr {
        Some(addr) => Some(listen("--grpc-addr", addr).await?),
        None => None,
    };
    let addresses = ListenAddresses {
        http,
        grpc: grpc.as_ref().map(|(_, addr)| *addr),
    };
    if let Some(addr) = addresses.grpc {
        secrets.warn(addr);
    }
    let metrics = Arc::new(Metrics::default());
    let loader = ModelLoader::new(options.engines, options.batching, metrics.clone());
    let repository = Repository::new(options.source, loader);
    let threads = options.decode_threads;
    let service = Arc::new(Service::new(repository, metrics, threads, options.timeout)?);
    let gate = RequestGate::new(service.clone(), secrets.keys.clone(), options.bodies);
    let gate = |addr: SocketAddr| {
        let gate = gate.clone();
        if addr.ip().is_loopback() {
            gate.with_host_names(&options.host_names)
        } else {
            gate
        }
    };

    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut serve = |listener, router| {
        let tls = secrets.tls.clone();
        let limits = options.connections;
        connections.spawn(limits.serve(listener, tls, router, closing.clone()));
    };
    serve(listener, rest::router(gate(http)));
    if let Some((listener, addr)) = grpc {
        serve(listener, grpc::router(gate(addr)));
    }
    if load(&service, &mut signals).await? {
        service.lifecycle().set_warm();
        ready(addresses);
        wait(&service, &secrets, &mut signals).await;
    }
    let report = drain(&service, &mut signals, options.drain).await;
    // An error means that all connections have already ended.
    let _ = close.send(true);
    finish(connections, &service).await;
    Ok(report)
}

/// API keys and certificate, which are read from files and reloaded on a signal.
struct ServerSecrets {
    keys: Option<Arc<ApiKeys>>,
    tls: Option<Arc<Tls>>,
}

impl ServerSecrets {
    fn read(keys: Option<&Path>, tls: Option<TlsFiles>) -> Result<Self, RunError> {
        let keys = keys.map(ApiKeys::read).transpose()?;
        let tls = tls.map(Tls::read).transpose()?;
        Ok(Self {
            keys: keys.map(Arc::new),
            tls: tls.map(Arc::new),
        })
    }

    /// Reads the files again. Keys or a certificate that cannot be read stay unchanged.
    fn reload(&self) {
        if let Some(Err(error)) = self.keys.as_deref().map(ApiKeys::reload) {
            tracing::error!(error = %one_line(&error), "kept the previous API keys");
        }
        match self.tls.as_deref().map(Tls::reload) {
            Some(Ok(())) => tracing::info!("reloaded the certificate"),
            Some(Err(error)) => {
                tracing::error!(error = %one_line(&error), "kept the previous certificate");
            }
            None => {}
        }
    }

    /// Warns if API keys would be sent over the network unencrypted.
    fn warn(&self, addr: SocketAddr) {
        if self.keys.is_some() && self.tls.is_none() && !addr.ip().is_loopback() {
            tracing::warn!(
                "API keys are sent to {addr} unencrypted; set --tls-cert and --tls-key, or use a \
                 reverse proxy with TLS"
            );
        }
    }
}

/// Binds a listener. Returns it with its actual address.
async fn listen(
    flag: &'static str,
    addr: SocketAddr,
) -> Result<(TcpListener, SocketAddr), RunError> {
    let listener = TcpListener::bind(addr).await;
    let listener = listener.map_err(|cause| RunError::Listen { flag, addr, cause })?;
    let addr = listener.local_addr().unwrap_or(addr);
    Ok((listener, addr))
}

/// Loads all models while health requests are served. Returns false if a stop signal came first.
async fn load(
    service: &Arc<Service>,
    signals: &mut mpsc::Receiver<Signal>,
) -> Result<bool, RunError> {
    let mut loading = spawn_load(service);
    loop {
        tokio::select! {
            loaded = &mut loading => {
                let panicked = |_| ServeError::Failed("loading the models panicked".into());
                for note in loaded.map_err(panicked)?? {
                    tracing::info!("loaded {note}");
                }
                return Ok(true);
            }
            signal = signals.recv() => if signal != Some(Signal::Reload) {
                return Ok(false);
            }
        }
    }
}

fn spawn_load(service: &Arc<Service>) -> JoinHandle<Result<Vec<String>, ServeError>> {
    let service = service.clone();
    tokio::task::spawn_blocking(move || service.repository().load_all())
}

/// Handles reload signals until a stop signal.
async fn wait(
    service: &Arc<Service>,
    secrets: &ServerSecrets,
    signals: &mut mpsc::Receiver<Signal>,
) {
    while let Some(Signal::Reload) = signals.recv().await {
        secrets.reload();
        let loading = spawn_load(service);
        // In the background, so that a stop signal is handled immediately.
        tokio::spawn(async move {
            match loading.await {
                Ok(Ok(notes)) => {
                    for note in notes {
                        tracing::info!("serving {note}");
                    }
                }
                Ok(Err(error)) => tracing::error!(%error, "kept the previous models"),
                Err(error) => tracing::error!(%error, "kept the previous models"),
            }
        });
    }
}

/// Rejects new requests and waits at most `limit` until the accepted ones are finished.
async fn drain(
    service: &Service,
    signals: &mut mpsc::Receiver<Signal>,
    limit: Duration,
) -> ShutdownReport {
    let lifecycle = service.lifecycle();
    lifecycle.start_draining();
    tracing::info!(accepted = lifecycle.accepted(), "draining");
    let finished = async {
        lifecycle.all_finished().await;
        sleep(LINGER).await;
    };
    let second_stop = async { while signals.recv().await == Some(Signal::Reload) {} };
    let start = Instant::now();
    let left = tokio::select! {
        _ = timeout(limit, finished) => limit.saturating_sub(start.elapsed()),
        () = second_stop => Duration::ZERO,
    };
    let cut_off = lifecycle.accepted();
    if cut_off > 0 {
        tracing::error!(cut_off, "requests were cut off");
    }
    ShutdownReport { cut_off, left }
}

/// Ends the connections, each after its current response, then the sessions.
async fn finish(mut connections: JoinSet<()>, service: &Arc<Service>) {
    const LIMIT: Duration = Duration::from_secs(1);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(LIMIT, ended).await.is_err() {
        connections.abort_all();
    }
    let service = service.clone();
    let closing = tokio::task::spawn_blocking(move || service.repository().close());
    // A session that is still running an abandoned batch ends with the process.
    let _ = timeout(LIMIT, closing).await;
}

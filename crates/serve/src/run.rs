//! The life of a server: listen, load, answer, drain, leave.

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
    ApiKeys, Batching, BodyLimits, Connections, Engines, KeyError, Metrics, ModelLoader,
    ModelSource, Repository, RequestGate, ServeError, Service, Tls, TlsError, TlsFiles, grpc, rest,
};

/// How long a server that owes no answer any more still refuses requests in words, for clients
/// whose next request is on its way.
const LINGER: Duration = Duration::from_millis(250);

/// What a server is told.
#[derive(Debug)]
pub struct Options {
    /// Where it listens; with port 0 the system chooses one.
    pub addr: SocketAddr,
    /// Where it listens for gRPC, if it does.
    pub grpc_addr: Option<SocketAddr>,
    /// The models.
    pub source: ModelSource,
    /// What runs them.
    pub engines: Engines,
    /// How requests are joined.
    pub batching: Batching,
    /// Threads that parse, decode and resize.
    pub decode_threads: usize,
    /// Most time of a request.
    pub timeout: Duration,
    /// Most time to finish what was accepted.
    pub drain: Duration,
    /// What bodies may be.
    pub bodies: BodyLimits,
    /// What connections may do.
    pub connections: Connections,
    /// By what names browsers may call a server on a loopback address, beside `localhost`.
    pub host_names: Vec<String>,
    /// The keys that requests need, if they do.
    pub api_key_file: Option<PathBuf>,
    /// The certificate, if it speaks TLS.
    pub tls: Option<TlsFiles>,
}

/// What somebody wants of a running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Load the models, the keys and the certificate anew.
    Reload,
    /// Finish what was accepted and leave; a second time, leave at once.
    Stop,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For HTTP.
    pub http: SocketAddr,
    /// For gRPC.
    pub grpc: Option<SocketAddr>,
}

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Accepted requests that were not answered in time.
    pub cut_off: usize,
    /// What is left of the time to finish.
    pub left: Duration,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The address cannot be had.
    #[error("{flag} {addr}: cannot listen there: {source}; is another server running?")]
    Listen {
        /// What says the address.
        flag: &'static str,
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The file of keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A model cannot be served.
    #[error(transparent)]
    Load(#[from] ServeError),
    /// The system gives no threads.
    #[error("cannot start the threads that prepare images: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// Runs a server until a signal stops it. `ready` is called with its addresses once requests are
/// answered.
///
/// # Errors
///
/// As [`RunError`] says; once it is ready, nothing but a signal ends it.
pub async fn run(
    options: Options,
    mut signals: mpsc::Receiver<Signal>,
    ready: impl FnOnce(Addresses),
) -> Result<ShutdownReport, RunError> {
    let secrets = ServerSecrets::read(options.api_key_file.as_deref(), options.tls)?;
    let (listener, http) = listen("--addr", options.addr).await?;
    secrets.warn(http);
    let grpc = match options.grpc_addr {
        Some(addr) => Some(listen("--grpc-addr", addr).await?),
        None => None,
    };
    let addresses = Addresses {
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
            gate.known_as(&options.host_names)
        } else {
            gate
        }
    };

    let (close, closing) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut serve = |listener, router| {
        let tls = secrets.tls.clone();
        let most = options.connections;
        connections.spawn(most.serve(listener, tls, router, closing.clone()));
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
    let ended = drain(&service, &mut signals, options.drain).await;
    // Nobody listens to it any more where the connections are gone.
    let _ = close.send(true);
    finish(connections, &service).await;
    Ok(ended)
}

/// What is read from files beside the models, and again on a signal.
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

    /// Reads them again; what cannot be read stays as it was.
    fn reload(&self) {
        if let Some(Err(error)) = self.keys.as_deref().map(ApiKeys::reload) {
            tracing::error!(%error, "the keys stay as they were");
        }
        match self.tls.as_deref().map(Tls::reload) {
            Some(Ok(())) => tracing::info!("the certificate was read anew"),
            Some(Err(error)) => tracing::error!(%error, "the certificate stays as it was"),
            None => {}
        }
    }

    /// Says so where keys can be read on their way.
    fn warn(&self, addr: SocketAddr) {
        if self.keys.is_some() && self.tls.is_none() && !addr.ip().is_loopback() {
            tracing::warn!(
                "API keys come to {addr} in the clear; give --tls-cert and --tls-key, unless a \
                 proxy before it speaks TLS"
            );
        }
    }
}

/// A listener, and the address that it has.
async fn listen(
    flag: &'static str,
    addr: SocketAddr,
) -> Result<(TcpListener, SocketAddr), RunError> {
    let listener = TcpListener::bind(addr).await;
    let listener = listener.map_err(|source| RunError::Listen { flag, addr, source })?;
    let addr = listener.local_addr().unwrap_or(addr);
    Ok((listener, addr))
}

/// Loads all models; health requests are answered meanwhile. False if it is to stop before.
async fn load(
    service: &Arc<Service>,
    signals: &mut mpsc::Receiver<Signal>,
) -> Result<bool, RunError> {
    let mut loading = spawn_load(service);
    loop {
        tokio::select! {
            loaded = &mut loading => {
                let lost = |_| ServeError::Failed("loading the models panicked".into());
                for note in loaded.map_err(lost)?? {
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

/// Answers requests until it is to stop.
async fn wait(
    service: &Arc<Service>,
    secrets: &ServerSecrets,
    signals: &mut mpsc::Receiver<Signal>,
) {
    while let Some(Signal::Reload) = signals.recv().await {
        secrets.reload();
        let loading = spawn_load(service);
        // A signal to stop need not wait for it.
        tokio::spawn(async move {
            match loading.await {
                Ok(Ok(notes)) => {
                    for note in notes {
                        tracing::info!("serving {note}");
                    }
                }
                Ok(Err(error)) => tracing::error!(%error, "what was loaded stays"),
                Err(error) => tracing::error!(%error, "what was loaded stays"),
            }
        });
    }
}

/// Refuses new requests and waits until the accepted ones are answered, `most` at longest.
async fn drain(
    service: &Service,
    signals: &mut mpsc::Receiver<Signal>,
    most: Duration,
) -> ShutdownReport {
    let lifecycle = service.lifecycle();
    lifecycle.start_draining();
    tracing::info!(accepted = lifecycle.accepted(), "draining");
    let answered = async {
        lifecycle.all_answered().await;
        sleep(LINGER).await;
    };
    let again = async { while signals.recv().await == Some(Signal::Reload) {} };
    let began = Instant::now();
    let left = tokio::select! {
        _ = timeout(most, answered) => most.saturating_sub(began.elapsed()),
        () = again => Duration::ZERO,
    };
    let cut_off = lifecycle.accepted();
    if cut_off > 0 {
        tracing::error!(cut_off, "requests were cut off");
    }
    ShutdownReport { cut_off, left }
}

/// Ends the connections, each after the answer that it is being sent, then the engines.
async fn finish(mut connections: JoinSet<()>, service: &Arc<Service>) {
    const MOST: Duration = Duration::from_secs(1);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(MOST, ended).await.is_err() {
        connections.abort_all();
    }
    let service = service.clone();
    let closing = tokio::task::spawn_blocking(move || service.repository().close());
    // An engine in the middle of a batch that nobody waits for is left to the system.
    let _ = timeout(MOST, closing).await;
}

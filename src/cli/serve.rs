//! `rgby serve`: serves models over HTTP and gRPC.

mod logging;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime as Tokio;
use tokio::sync::mpsc;

use self::logging::LogFormat;
use super::engine_args::RunnerArgs;
use super::{EngineArgs, Outcome, Ui};
use crate::score::{Devices, StartedEngine};
use crate::serve::{
    Batching, BodyLimits, Collector, ConnectionLimits, Engines, ListenAddresses, ModelSource,
    Options, ShutdownReport, Signal, TlsFiles, run,
};

/// Serve models over HTTP and gRPC: web page, image uploads and Open Inference Protocol v2
///
/// Requests are combined into batches. The server warms up with each batch size, then prints
/// `ready: http://ADDRESS` to stderr. SIGTERM finishes accepted requests and exits; SIGHUP reloads
/// models, keys and certificate. By default the server listens on the loopback interface only.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  rgby serve --model model.onnx        # then open http://127.0.0.1:8000 in a browser, or
  curl -F red=@a_red.png -F green=@a_green.png -F blue=@a_blue.png -F yellow=@a_yellow.png \\
      http://127.0.0.1:8000/v1/predict
  rgby serve --model model.onnx --grpc-addr 127.0.0.1:8001

A model folder contains <version>/model.onnx, or <name>/<version>/model.onnx for several models.
Versions are 1, 2, 3, …; the newest is served.")]
pub struct ServeArgs {
    /// Model file of `rgby export`; served as version 1
    #[arg(long, value_name = "FILE", required_unless_present = "model_dir")]
    pub model: Option<PathBuf>,
    /// Folder of models, instead of --model
    #[arg(long, value_name = "DIR", conflicts_with = "model")]
    pub model_dir: Option<PathBuf>,
    /// Number of newest versions to serve per model in --model-dir
    #[arg(long, value_name = "N", default_value_t = 1, requires = "model_dir", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub versions: u16,
    /// Model name that clients use
    ///
    /// With --model-dir it names the model whose version folders lie directly in DIR.
    #[arg(long, value_name = "NAME", default_value = "rgby", value_parser = model_name)]
    pub name: String,
    /// HTTP listen address; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub addr: SocketAddr,
    /// gRPC listen address; enables the Open Inference Protocol over gRPC
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub grpc_addr: Option<SocketAddr>,
    /// Device for the models: cpu, cuda[:i] or tensorrt[:i]
    ///
    /// `cuda:0,1` uses several devices of one kind in parallel.
    #[arg(long, value_name = "DEVICE", default_value_t = Devices::default())]
    pub device: Devices,
    #[command(flatten)]
    pub runner: RunnerArgs,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// File of API keys, one per line; reloaded on SIGHUP
    ///
    /// Each request must carry one of the keys.
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// PEM file with the server certificate, for HTTPS; reloaded on SIGHUP
    ///
    /// Intermediate certificates follow the server certificate in the same file.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Additional host name that browsers may use; may be repeated
    ///
    /// A server on a loopback address otherwise accepts only IP addresses and localhost. Give the
    /// name of a reverse proxy in front of the server.
    #[arg(long = "host-name", value_name = "NAME")]
    pub host_names: Vec<String>,
    /// OTLP/HTTP collector for traces, for example `http://127.0.0.1:4318`
    ///
    /// Without it, `OTEL_EXPORTER_OTLP_ENDPOINT` is used if set; else nothing is traced.
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Format of the log on stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: LogFormat,
}

/// Batching and limits of the server.
#[derive(Debug, Clone, Args)]
pub struct LimitArgs {
    /// Maximum batch size
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_batch: u16,
    /// Maximum time to wait for a batch to fill
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = humantime::parse_duration)]
    pub max_delay: Duration,
    /// Maximum number of queued images; further requests get status 429
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_queue: u32,
    /// Maximum processing time of a request; then it gets status 504
    ///
    /// The time starts when the request has been read.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive)]
    pub timeout: Duration,
    /// Maximum time for reading a request's headers, and again for its body
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = positive)]
    pub read_timeout: Duration,
    /// Maximum size of a request body in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_body: u32,
    /// Maximum total size of concurrent request bodies in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    pub max_bodies: u32,
    /// Maximum number of concurrent connections per listen address
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections: u32,
    /// Maximum time to finish accepted requests on shutdown
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain: Duration,
}

impl ServeArgs {
    /// Serves until a signal stops the server.
    ///
    /// # Errors
    ///
    /// A model cannot be loaded, the execution provider is not available, the address is in use, or
    /// the API keys or the certificate cannot be read.
    pub fn run(&self, ui: &Ui) -> anyhow::Result<Outcome> {
        self.check()?;
        logging::start(self.log_format, ui.is_quiet());
        let traces = Collector::connect(self.otlp_endpoint.as_deref())?;
        let mut started = self.engine().options().start()?;
        let runner = &self.runner;
        let is_configured = runner.sessions.is_some() || runner.intra_threads.is_some();
        if !is_configured && !started.runtimes[0].is_tract() {
            // One session with all threads: faster for single images, as fast for full batches.
            started.threads = started.threads.joined();
        }
        for line in started.notes() {
            tracing::info!("{line}");
        }
        let tokio = Tokio::new().context("cannot start the threads that serve connections")?;
        let outcome = tokio.block_on(self.serve(&started, traces));
        // Does not wait for a model that is still loading or an abandoned batch.
        tokio.shutdown_timeout(Duration::from_secs(1));
        outcome
    }

    fn check(&self) -> anyhow::Result<()> {
        let LimitArgs {
            max_batch,
            max_queue,
            max_body,
            max_bodies,
            ..
        } = self.limits;
        if u32::from(max_batch) > max_queue {
            bail!(
                "--max-queue {max_queue} is less than --max-batch {max_batch}\nhint: increase \
                 --max-queue or reduce --max-batch"
            );
        }
        if max_body > max_bodies {
            bail!(
                "--max-bodies {max_bodies} is less than --max-body {max_body}\nhint: increase \
                 --max-bodies or reduce --max-body"
            );
        }
        Ok(())
    }

    fn engine(&self) -> EngineArgs {
        EngineArgs {
            batch: self.limits.max_batch,
            device: self.device.clone(),
            runner: self.runner.clone(),
        }
    }

    async fn serve(
        &self,
        started: &StartedEngine,
        traces: Option<Collector>,
    ) -> anyhow::Result<Outcome> {
        let (sender, signals) = mpsc::channel(4);
        let stop_outcome = forward_signals(sender)?;
        let ready = |addresses| self.print_ready(addresses);
        let ShutdownReport { cut_off, left } = run(self.options(started), signals, ready).await?;
        if let Some(traces) = traces {
            let finish = move || traces.finish(left);
            tokio::task::spawn_blocking(finish).await?;
        }
        if cut_off > 0 {
            return Ok(Outcome::SomeFailed);
        }
        Ok(*stop_outcome.borrow())
    }

    fn options(&self, started: &StartedEngine) -> Options {
        const MIB: usize = 1 << 20;
        let LimitArgs {
            max_batch,
            max_delay,
            max_queue,
            ..
        } = self.limits;
        Options {
            addr: self.addr,
            grpc_addr: self.grpc_addr,
            source: self.source(),
            engines: Engines {
                runtimes: started.runtimes.clone(),
                sessions: started.threads.sessions,
                session: started.session_options(),
            },
            batching: Batching {
                max_batch: max_batch.into(),
                max_delay,
                max_queue: max_queue as usize,
            },
            decode_threads: started.threads.decode_threads,
            timeout: self.limits.timeout,
            drain: self.limits.drain,
            bodies: BodyLimits {
                max_body: self.limits.max_body as usize * MIB,
                max_bodies: self.limits.max_bodies as usize * MIB,
                timeout: self.limits.read_timeout,
            },
            connections: ConnectionLimits {
                max_connections: self.limits.max_connections as usize,
                head_timeout: self.limits.read_timeout,
            },
            host_names: self.host_names.clone(),
            api_key_file: self.api_key_file.clone(),
            tls: self.tls(),
        }
    }

    /// clap requires both flags or neither.
    fn tls(&self) -> Option<TlsFiles> {
        let (cert, key) = (self.tls_cert.clone()?, self.tls_key.clone()?);
        Some(TlsFiles { cert, key })
    }

    fn source(&self) -> ModelSource {
        let name = self.name.clone();
        match (&self.model, &self.model_dir) {
            (_, Some(path)) => ModelSource::Folder {
                name,
                path: path.clone(),
                versions: self.versions.into(),
            },
            // clap requires one of them.
            (path, None) => ModelSource::File {
                name,
                path: path.clone().unwrap_or_default(),
            },
        }
    }

    /// Prints the `ready` line that scripts wait for, after one for gRPC. It does not depend on the
    /// log level.
    fn print_ready(&self, addresses: ListenAddresses) {
        let ListenAddresses { http, grpc } = addresses;
        let tls = self.tls_cert.as_ref().map_or("", |_| "s");
        let grpc = grpc.map(|addr| format!("grpc{tls}://{addr}"));
        for url in grpc.into_iter().chain([format!("http{tls}://{http}")]) {
            let line = match self.log_format {
                LogFormat::Text => format!("ready: {url}"),
                LogFormat::Json => json!({ "ready": url }).to_string(),
            };
            // A closed stderr must not stop the server.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

/// Parses a model name, which must not need escaping in a URL path.
fn model_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let number = text.parse::<u64>().is_ok();
    if text.is_empty() || text.starts_with('.') || number || !text.chars().all(allowed) {
        return Err("use letters, digits, `-`, `_` and `.`, but not only digits".into());
    }
    Ok(text.to_owned())
}

fn positive(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|e| e.to_string())?;
    if time.is_zero() {
        return Err("must be greater than 0".into());
    }
    Ok(time)
}

/// Outcome of the command if a signal stops the server.
type StopOutcome = tokio::sync::watch::Receiver<Outcome>;

/// Forwards SIGTERM, SIGINT and SIGHUP to the server.
#[cfg(unix)]
fn forward_signals(sender: mpsc::Sender<Signal>) -> anyhow::Result<StopOutcome> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let (outcome, stop_outcome) = tokio::sync::watch::channel(Outcome::Stopped);
    tokio::spawn(async move {
        loop {
            let signal = tokio::select! {
                _ = terminate.recv() => Signal::Stop,
                _ = interrupt.recv() => {
                    let _ = outcome.send(Outcome::Interrupted);
                    Signal::Stop
                }
                _ = hang_up.recv() => Signal::Reload,
            };
            if sender.send(signal).await.is_err() {
                return;
            }
        }
    });
    Ok(stop_outcome)
}

/// Forwards Ctrl-C to the server.
#[cfg(not(unix))]
fn forward_signals(sender: mpsc::Sender<Signal>) -> anyhow::Result<StopOutcome> {
    let (_, stop_outcome) = tokio::sync::watch::channel(Outcome::Interrupted);
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if sender.send(Signal::Stop).await.is_err() {
                return;
            }
        }
    });
    Ok(stop_outcome)
}

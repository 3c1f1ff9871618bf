//! Mounts rgby's routes in an axum application: `cargo run --release --features examples
//! --example serve -- model.onnx`, then open <http://127.0.0.1:8000/cells/>.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use axum::{Router, routing::get};
use rgby::score::{Runtime, RuntimeOptions, SessionOptions};
use rgby::serve::{
    Batching, BodyLimits, Engines, Metrics, ModelLoader, ModelSource, Repository, RequestGate,
    Service, rest,
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model] = &args[..] else {
        bail!("usage: serve MODEL.onnx");
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    Ok(axum::serve(listener, app(model)?).await?)
}

/// Builds the application: its own page at `/`, and the routes of `rgby serve` below `/cells`.
pub fn app(model: &Path) -> anyhow::Result<Router> {
    let engines = Engines {
        runtimes: vec![Runtime::start(&RuntimeOptions::default())?],
        sessions: 1,
        session: SessionOptions::from(2),
    };
    let batching = Batching {
        max_batch: 8,
        max_delay: Duration::from_millis(5),
        max_queue: 64,
    };
    let source = ModelSource::File {
        name: "rgby".into(),
        path: model.to_owned(),
    };
    let metrics = Arc::new(Metrics::default());
    let loader = ModelLoader::new(engines, batching, metrics.clone());
    let repository = Repository::new(source, loader);
    let service = Service::new(repository, metrics, 2, Duration::from_secs(30))?;
    // Requests get status 503 until the models are loaded.
    service.repository().load_all()?;
    service.lifecycle().set_warm();
    let limits = BodyLimits {
        max_body: 64 << 20,
        max_bodies: 256 << 20,
        timeout: Duration::from_secs(30),
    };
    let cells = rest::router(RequestGate::new(Arc::new(service), None, limits));
    let own = Router::new().route("/", get(|| async { "cells are at /cells/" }));
    Ok(own.nest("/cells", cells))
}

//! Server and model metadata, health probes and metrics.

#![allow(clippy::unused_async, reason = "axum handlers must be async")]

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::errors::HttpError;
use super::types::{CommonErrors, ModelMetadata, ModelReady, ServerMetadata};
use super::{ModelPath, RestState};
use crate::{Model, ServeError, metadata};

/// Return the server's metadata
#[utoipa::path(
    get, path = "/v2", tag = "server",
    responses((status = 200, description = "Name, version, extensions", body = ServerMetadata), CommonErrors),
)]
pub(super) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: metadata::NAME,
        version: metadata::VERSION,
        extensions: metadata::EXTENSIONS.to_vec(),
    })
}

/// Liveness probe: the process runs
#[utoipa::path(
    get, path = "/v2/health/live", tag = "server", security(()),
    responses((status = 200, description = "Live"), CommonErrors),
)]
pub(super) async fn live() {}

/// Readiness probe: all models are loaded, and the server is not shutting down
#[utoipa::path(
    get, path = "/v2/health/ready", tag = "server", security(()),
    responses((status = 200, description = "Ready"), CommonErrors),
)]
pub(super) async fn ready(State(state): State<RestState>) -> Result<(), HttpError> {
    Ok(state.service.lifecycle().check_ready()?)
}

/// Return a model's metadata
#[utoipa::path(
    get, path = "/v2/models/{model}", tag = "models",
    params(("model" = String, Path, description = "Model name")),
    responses((status = 200, description = "Tensors and parameters", body = ModelMetadata), CommonErrors),
)]
pub(super) async fn model(
    State(state): State<RestState>,
    path: ModelPath,
) -> Result<Json<ModelMetadata>, HttpError> {
    Ok(Json(state.metadata(&path)?))
}

/// Return the metadata of one version of a model
#[utoipa::path(
    get, path = "/v2/models/{model}/versions/{version}", tag = "models",
    params(
        ("model" = String, Path, description = "Model name"),
        ("version" = String, Path, description = "Model version"),
    ),
    responses((status = 200, description = "Tensors and parameters", body = ModelMetadata), CommonErrors),
)]
pub(super) async fn model_version(
    State(state): State<RestState>,
    path: ModelPath,
) -> Result<Json<ModelMetadata>, HttpError> {
    Ok(Json(state.metadata(&path)?))
}

/// Return whether a model is ready
#[utoipa::path(
    get, path = "/v2/models/{model}/ready", tag = "models",
    params(("model" = String, Path, description = "Model name")),
    responses((status = 200, description = "Ready", body = ModelReady), CommonErrors),
)]
pub(super) async fn model_ready(
    State(state): State<RestState>,
    path: ModelPath,
) -> Result<Json<ModelReady>, HttpError> {
    Ok(Json(state.readiness(&path)?))
}

/// Return whether one version of a model is ready
#[utoipa::path(
    get, path = "/v2/models/{model}/versions/{version}/ready", tag = "models",
    params(
        ("model" = String, Path, description = "Model name"),
        ("version" = String, Path, description = "Model version"),
    ),
    responses((status = 200, description = "Ready", body = ModelReady), CommonErrors),
)]
pub(super) async fn version_ready(
    State(state): State<RestState>,
    path: ModelPath,
) -> Result<Json<ModelReady>, HttpError> {
    Ok(Json(state.readiness(&path)?))
}

/// Return the metrics in the text format of `OpenMetrics`
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses((status = 200, description = "Metrics", body = String,
               content_type = "application/openmetrics-text"), CommonErrors),
)]
pub(super) async fn metrics(State(state): State<RestState>) -> impl IntoResponse {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, TYPE)],
        state.service.metrics().text(),
    )
}

impl RestState {
    fn readiness(&self, path: &ModelPath) -> Result<ModelReady, ServeError> {
        self.service.lifecycle().check_ready()?;
        let repository = self.service.repository();
        let model = repository.get(&path.model, path.version.as_deref())?;
        Ok(ModelReady {
            name: model.name().to_owned(),
            ready: true,
        })
    }

    fn metadata(&self, path: &ModelPath) -> Result<ModelMetadata, ServeError> {
        let repository = self.service.repository();
        let model = repository.get(&path.model, path.version.as_deref())?;
        let versions = repository.versions(&path.model)?;
        Ok(ModelMetadata {
            name: model.name().to_owned(),
            versions: versions
                .iter()
                .map(|model| model.version().to_owned())
                .collect(),
            platform: metadata::PLATFORM,
            inputs: metadata::inputs(&model),
            outputs: metadata::outputs(&model),
            parameters: parameters(&model),
        })
    }
}

fn parameters(model: &Model) -> Map<String, Value> {
    let spec = model.spec();
    let entries = [
        ("arch", json!(spec.arch)),
        ("classes", json!(spec.classes)),
        ("thresholds", json!(spec.thresholds)),
        ("stains", json!(spec.preprocess.stains())),
        ("preprocess", json!(spec.preprocess)),
        ("precision", json!(spec.precision)),
        ("version", json!(model.version())),
        ("sha256", json!(model.sha256())),
    ];
    entries
        .map(|(key, value)| (key.to_owned(), value))
        .into_iter()
        .collect()
}

//! What the server and its models are, and how they are.

#![allow(
    clippy::unused_async,
    reason = "handlers are async, whether they wait or not"
)]

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::errors::Refusal;
use super::types::{LookErrors, ModelMetadata, ModelReady, ServerMetadata};
use super::{Rest, Target};
use crate::{Model, ServeError, metadata};

/// What this server is
#[utoipa::path(
    get, path = "/v2", tag = "server",
    responses((status = 200, description = "Name, version, extensions", body = ServerMetadata), LookErrors),
)]
pub(super) async fn server() -> Json<ServerMetadata> {
    Json(ServerMetadata {
        name: metadata::NAME,
        version: metadata::VERSION,
        extensions: metadata::EXTENSIONS.to_vec(),
    })
}

/// Whether the process runs
#[utoipa::path(
    get, path = "/v2/health/live", tag = "server", security(()),
    responses((status = 200, description = "It does"), LookErrors),
)]
pub(super) async fn live() {}

/// Whether requests are answered: all models are loaded, and the server is not about to leave
#[utoipa::path(
    get, path = "/v2/health/ready", tag = "server", security(()),
    responses((status = 200, description = "They are"), LookErrors),
)]
pub(super) async fn ready(State(rest): State<Rest>) -> Result<(), Refusal> {
    Ok(rest.service.lifecycle().check_ready()?)
}

/// What a model is
#[utoipa::path(
    get, path = "/v2/models/{model}", tag = "models",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "Its tensors", body = ModelMetadata), LookErrors),
)]
pub(super) async fn model(
    State(rest): State<Rest>,
    target: Target,
) -> Result<Json<ModelMetadata>, Refusal> {
    Ok(Json(rest.metadata(&target)?))
}

/// What one version of a model is
#[utoipa::path(
    get, path = "/v2/models/{model}/versions/{version}", tag = "models",
    params(
        ("model" = String, Path, description = "The model's name"),
        ("version" = String, Path, description = "Its version"),
    ),
    responses((status = 200, description = "Its tensors", body = ModelMetadata), LookErrors),
)]
pub(super) async fn model_version(
    State(rest): State<Rest>,
    target: Target,
) -> Result<Json<ModelMetadata>, Refusal> {
    Ok(Json(rest.metadata(&target)?))
}

/// Whether a model answers
#[utoipa::path(
    get, path = "/v2/models/{model}/ready", tag = "models",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "It does", body = ModelReady), LookErrors),
)]
pub(super) async fn model_ready(
    State(rest): State<Rest>,
    target: Target,
) -> Result<Json<ModelReady>, Refusal> {
    Ok(Json(rest.readiness(&target)?))
}

/// Whether one version of a model answers
#[utoipa::path(
    get, path = "/v2/models/{model}/versions/{version}/ready", tag = "models",
    params(
        ("model" = String, Path, description = "The model's name"),
        ("version" = String, Path, description = "Its version"),
    ),
    responses((status = 200, description = "It does", body = ModelReady), LookErrors),
)]
pub(super) async fn version_ready(
    State(rest): State<Rest>,
    target: Target,
) -> Result<Json<ModelReady>, Refusal> {
    Ok(Json(rest.readiness(&target)?))
}

/// Counts and times in the text format of `OpenMetrics`
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses((status = 200, description = "The metrics", body = String,
               content_type = "application/openmetrics-text"), LookErrors),
)]
pub(super) async fn metrics(State(rest): State<Rest>) -> impl IntoResponse {
    const TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    (
        [(header::CONTENT_TYPE, TYPE)],
        rest.service.metrics().text(),
    )
}

/// This description
#[utoipa::path(
    get, path = "/openapi.json", tag = "server", security(()),
    responses((status = 200, description = "OpenAPI 3.1", body = Value), LookErrors),
)]
pub(super) async fn description() -> impl IntoResponse {
    Json(super::openapi())
}

impl Rest {
    fn readiness(&self, target: &Target) -> Result<ModelReady, ServeError> {
        self.service.lifecycle().check_ready()?;
        let repository = self.service.repository();
        let model = repository.get(&target.model, target.version.as_deref())?;
        Ok(ModelReady {
            name: model.name().to_owned(),
            ready: true,
        })
    }

    fn metadata(&self, target: &Target) -> Result<ModelMetadata, ServeError> {
        let repository = self.service.repository();
        let model = repository.get(&target.model, target.version.as_deref())?;
        let versions = repository.versions(&target.model)?;
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

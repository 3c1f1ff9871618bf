//! The model repository extension: index, load and unload.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::de::DeserializeOwned;

use super::errors::HttpError;
use super::json;
use super::types::{CommonErrors, ErrorBody, IndexRequest, IndexedModel, LoadRequest};
use super::{ModelPath, RestState};
use crate::ServeError;

/// List the models on disk and the loaded ones
#[utoipa::path(
    post, path = "/v2/repository/index", tag = "repository",
    request_body(content = Option<IndexRequest>),
    responses(
        (status = 200, description = "The models", body = Vec<IndexedModel>),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "The memory for request bodies is exhausted", body = ErrorBody),
        CommonErrors
    ),
)]
pub(super) async fn index(
    State(state): State<RestState>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<IndexedModel>>, HttpError> {
    let read = state.body_reader.read(&headers, body).await?;
    let request: IndexRequest = parse(&read.bytes, "index request")?;
    let entries = state.service.index(request.ready).await?;
    let listed = entries.into_iter().map(|entry| IndexedModel {
        state: entry.state(),
        name: entry.name,
        version: entry.version,
        reason: entry.reason,
    });
    Ok(Json(listed.collect()))
}

/// Load or reload a model from the server's disk
///
/// The model is validated and warmed up before it replaces the loaded one. If that fails, the
/// loaded model stays in use.
#[utoipa::path(
    post, path = "/v2/repository/models/{model}/load", tag = "repository",
    params(("model" = String, Path, description = "Model name")),
    request_body(content = Option<LoadRequest>),
    responses(
        (status = 200, description = "Loaded"),
        (status = 408, description = "The body did not arrive in time", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "The model cannot be loaded; nothing changed", body = ErrorBody),
        (status = 429, description = "The memory for request bodies is exhausted", body = ErrorBody),
        (status = 500, description = "Loading the model panicked", body = ErrorBody),
        CommonErrors
    ),
)]
pub(super) async fn load(
    State(state): State<RestState>,
    path: ModelPath,
    headers: HeaderMap,
    body: Body,
) -> Result<(), HttpError> {
    state.service.lifecycle().check_ready()?;
    let read = state.body_reader.read(&headers, body).await?;
    let request: LoadRequest = parse(&read.bytes, "load request")?;
    let parameters = request.parameters.keys().map(String::as_str);
    Ok(state.service.load(path.model, parameters).await?)
}

/// Unload a model after its current requests
#[utoipa::path(
    post, path = "/v2/repository/models/{model}/unload", tag = "repository",
    params(("model" = String, Path, description = "Model name")),
    responses((status = 200, description = "Unloaded"), CommonErrors),
)]
pub(super) async fn unload(
    State(state): State<RestState>,
    path: ModelPath,
) -> Result<(), HttpError> {
    state.service.lifecycle().check_ready()?;
    Ok(state.service.unload(path.model).await?)
}

/// Parses a JSON body, which may be empty or `null`. `what` names the request in the error.
fn parse<T: DeserializeOwned + Default>(body: &[u8], what: &str) -> Result<T, ServeError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let parsed = json::read::<Option<T>>(body, what);
    parsed
        .map(Option::unwrap_or_default)
        .map_err(ServeError::Invalid)
}

//! The protocol's extension for loading and unloading models.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::de::DeserializeOwned;

use super::errors::Refusal;
use super::json;
use super::types::{ErrorBody, IndexRequest, IndexedModel, LoadRequest, LookErrors};
use super::{Rest, Target};
use crate::ServeError;

/// Lists the models on disk and those that are loaded
#[utoipa::path(
    post, path = "/v2/repository/index", tag = "repository",
    request_body(content = Option<IndexRequest>),
    responses(
        (status = 200, description = "The models", body = Vec<IndexedModel>),
        (status = 408, description = "The body took too long to arrive", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 429, description = "Too much is going on", body = ErrorBody),
        LookErrors
    ),
)]
pub(super) async fn index(
    State(rest): State<Rest>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Vec<IndexedModel>>, Refusal> {
    let read = rest.bodies.read(&headers, body).await?;
    let request: IndexRequest = parse(&read.bytes, "for the index")?;
    let entries = rest.service.index(request.ready).await?;
    let listed = entries.into_iter().map(|entry| IndexedModel {
        state: entry.state(),
        name: entry.name,
        version: entry.version,
        reason: entry.reason,
    });
    Ok(Json(listed.collect()))
}

/// Loads a model anew from the server's disk, or for the first time
///
/// It is checked and warmed up before it takes the place of what was loaded. If that fails, what
/// was loaded goes on.
#[utoipa::path(
    post, path = "/v2/repository/models/{model}/load", tag = "repository",
    params(("model" = String, Path, description = "The model's name")),
    request_body(content = Option<LoadRequest>),
    responses(
        (status = 200, description = "It answers from now on"),
        (status = 408, description = "The body took too long to arrive", body = ErrorBody),
        (status = 413, description = "The body is too large", body = ErrorBody),
        (status = 422, description = "It cannot be loaded, and all is as it was", body = ErrorBody),
        (status = 429, description = "Too much is going on", body = ErrorBody),
        (status = 500, description = "Loading it broke off", body = ErrorBody),
        LookErrors
    ),
)]
pub(super) async fn load(
    State(rest): State<Rest>,
    target: Target,
    headers: HeaderMap,
    body: Body,
) -> Result<(), Refusal> {
    rest.service.lifecycle().check_ready()?;
    let read = rest.bodies.read(&headers, body).await?;
    let request: LoadRequest = parse(&read.bytes, "to load")?;
    let parameters = request.parameters.keys().map(String::as_str);
    Ok(rest.service.load(target.model, parameters).await?)
}

/// Takes a model out of service; requests that it has are still answered
#[utoipa::path(
    post, path = "/v2/repository/models/{model}/unload", tag = "repository",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "It is gone"), LookErrors),
)]
pub(super) async fn unload(State(rest): State<Rest>, target: Target) -> Result<(), Refusal> {
    rest.service.lifecycle().check_ready()?;
    Ok(rest.service.unload(target.model).await?)
}

/// A request's JSON, which may be left out or `null`; `what` it asks for.
fn parse<T: DeserializeOwned + Default>(body: &[u8], what: &str) -> Result<T, ServeError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    let parsed = json::read::<Option<T>>(body, &format!("request {what}"));
    parsed
        .map(Option::unwrap_or_default)
        .map_err(ServeError::Invalid)
}

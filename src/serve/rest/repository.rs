//! The protocol's extension for loading and unloading models.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;

use super::errors::Refusal;
use super::types::{ErrorBody, IndexRequest, IndexedModel, LoadRequest, LookErrors};
use super::{Rest, Target};
use crate::serve::{IndexEntry, ServeError};

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
    let request: IndexRequest = if read.bytes.is_empty() {
        IndexRequest::default()
    } else {
        let parsed = serde_json::from_slice(&read.bytes);
        parsed.map_err(|e| {
            ServeError::Invalid(format!("the body is no request for the index: {e}"))
        })?
    };
    let service = rest.service.clone();
    let entries = tokio::task::spawn_blocking(move || service.repository().index()).await;
    let entries = entries.map_err(|e| ServeError::Failed(e.to_string()))?;
    let wanted = |entry: &IndexEntry| entry.ready || !request.ready;
    let listed = entries
        .into_iter()
        .filter(wanted)
        .map(|entry| IndexedModel {
            state: if entry.ready { "READY" } else { "UNAVAILABLE" },
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
    check_load(&read.bytes)?;
    let service = rest.service.clone();
    let name = target.model;
    let loading = tokio::task::spawn_blocking(move || {
        let done = service.repository().load(&name);
        match &done {
            Ok(note) => tracing::info!("serving {note}"),
            Err(error) => tracing::error!(%error, "what was loaded stays"),
        }
        done
    });
    let loaded = loading
        .await
        .map_err(|e| ServeError::Failed(e.to_string()))?;
    Ok(loaded.map(drop)?)
}

/// Refuses what the protocol lets a client send in place of what lies on the server's disk.
fn check_load(body: &[u8]) -> Result<(), ServeError> {
    if body.is_empty() {
        return Ok(());
    }
    let request: LoadRequest = serde_json::from_slice(body)
        .map_err(|e| ServeError::Invalid(format!("the body is no request to load: {e}")))?;
    match request.parameters.keys().next() {
        None => Ok(()),
        Some(name) => {
            let name: String = name.chars().take(64).collect();
            Err(ServeError::Invalid(format!(
                "parameter `{name}`: models are loaded as they are on the server's disk, without \
                 parameters"
            )))
        }
    }
}

/// Takes a model out of service; requests that it has are still answered
#[utoipa::path(
    post, path = "/v2/repository/models/{model}/unload", tag = "repository",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, description = "It is gone"), LookErrors),
)]
pub(super) async fn unload(State(rest): State<Rest>, target: Target) -> Result<(), Refusal> {
    rest.service.lifecycle().check_ready()?;
    let service = rest.service.clone();
    let unloading = tokio::task::spawn_blocking(move || service.repository().unload(&target.model));
    let unloaded = unloading
        .await
        .map_err(|e| ServeError::Failed(e.to_string()))?;
    Ok(unloaded?)
}

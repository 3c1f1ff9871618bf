//! The HTTP API: the Open Inference Protocol over REST, image uploads, a web page, metrics and an
//! `OpenAPI` description. Supports the binary tensor and model repository extensions.

mod errors;
mod explain;
mod form;
mod health;
mod infer;
mod json;
mod json_numbers;
mod openapi;
mod page;
mod predict;
mod repository;
mod samples;
mod server_info;
mod tensors;
mod types;
mod v1_schema;

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Path, Request};
use axum::http::Method;
use axum::http::request::Parts;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{RequestPartsExt, Router};
use tower_http::decompression::RequestDecompressionLayer;

use self::errors::{ErrorCause, HttpError, path_error};
pub use self::json_numbers::JsonNumbers;
pub use self::openapi::openapi;
pub use self::tensors::{RestResponseFormat, parse};
pub use self::types::{InferRequest, InferResponse};
use super::Service;
use super::http::{
    BodyReader, ProtocolAdapter, RequestGate, RequestOutcome, RouteLabel, with_layers,
};

const PROTOCOL: ProtocolAdapter = ProtocolAdapter {
    attributes: [
        "http.request.method",
        "http.route",
        "http.response.status_code",
    ],
    label,
    is_open,
    refuse: |error| HttpError::from(error).into_response(),
    outcome: |response| RequestOutcome {
        status: response.status().as_u16(),
        cause: response
            .extensions()
            .get::<ErrorCause>()
            .map(|cause| cause.0),
    },
};

/// Paths that need no API key: probes cannot send one, the description contains no secret, and the
/// user enters the key on the page.
const OPEN_PATHS: [&str; 4] = ["/", "/v2/health/live", "/v2/health/ready", "/openapi.json"];

/// State shared by the handlers.
#[derive(Debug, Clone)]
struct RestState {
    service: Arc<Service>,
    body_reader: Arc<BodyReader>,
}

/// Returns all routes.
pub fn router(gate: RequestGate) -> Router {
    let state = RestState {
        service: gate.service.clone(),
        body_reader: gate.body_reader.clone(),
    };
    let inference = Router::new()
        .route("/v2/models/{model}/infer", post(infer::infer))
        .route(
            "/v2/models/{model}/versions/{version}/infer",
            post(infer::infer_version),
        )
        .route("/v1/predict", post(predict::predict))
        .route("/v1/explain", post(explain::explain))
        .layer(RequestDecompressionLayer::new());
    let routes = Router::new()
        .route("/", get(page::index))
        .route("/page/{file}", get(page::asset))
        .route("/v1/about", get(server_info::server_info))
        .route("/v1/samples/{class}/{file}", get(samples::sample))
        .route("/v2", get(health::server))
        .route("/v2/health/live", get(health::live))
        .route("/v2/health/ready", get(health::ready))
        .route("/v2/models/{model}", get(health::model))
        .route(
            "/v2/models/{model}/versions/{version}",
            get(health::model_version),
        )
        .route("/v2/models/{model}/ready", get(health::model_ready))
        .route(
            "/v2/models/{model}/versions/{version}/ready",
            get(health::version_ready),
        )
        .route("/v2/repository/index", post(repository::index))
        .route("/v2/repository/models/{model}/load", post(repository::load))
        .route(
            "/v2/repository/models/{model}/unload",
            post(repository::unload),
        )
        .route("/metrics", get(health::metrics))
        .route("/openapi.json", get(openapi::description))
        .merge(inference)
        .fallback(errors::no_such_route)
        .method_not_allowed_fallback(errors::wrong_method)
        .with_state(state);
    with_layers(routes, gate, PROTOCOL)
}

fn is_open(path: &str) -> bool {
    OPEN_PATHS.contains(&path) || path.starts_with(page::FOLDER)
}

fn label(request: &Request) -> RouteLabel {
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("none", MatchedPath::as_str).to_owned();
    RouteLabel {
        method: method_label(request.method()),
        quiet: route.starts_with("/v2/health") || route == "/metrics",
        route,
    }
}

/// Returns the label of a method. Unknown methods share one, because a client can send any.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// Model and optional version of a path.
#[derive(Debug, serde::Deserialize)]
struct ModelPath {
    model: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for ModelPath {
    type Rejection = HttpError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, HttpError> {
        let path: Result<Path<Self>, _> = parts.extract().await;
        Ok(path.map_err(path_error)?.0)
    }
}

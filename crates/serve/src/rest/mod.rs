//! The server over HTTP: the Open Inference Protocol's REST half with the binary tensor and model
//! repository extensions, uploads of images, a page for people, metrics and the description of all
//! that.

mod about;
mod errors;
mod explain;
mod form;
mod health;
mod infer;
mod json;
mod numbers;
mod openapi;
mod page;
mod predict;
mod repository;
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

use self::errors::{Cause, Refusal, unreadable_path};
pub use self::numbers::Numbers;
pub use self::openapi::openapi;
pub use self::tensors::{Wanted, parse};
pub use self::types::{InferRequest, InferResponse};
use super::Service;
use super::http::{Bodies, Label, Protocol, RequestGate, RequestOutcome, around};

/// What happens around the handlers.
const PROTOCOL: Protocol = Protocol {
    attributes: [
        "http.request.method",
        "http.route",
        "http.response.status_code",
    ],
    label,
    is_open,
    refuse: |error| Refusal::from(error).into_response(),
    outcome: |response| RequestOutcome {
        status: response.status().as_u16(),
        cause: response.extensions().get::<Cause>().map(|cause| cause.0),
    },
};

/// Paths that need no key: probes have none, the description holds no secret, and the page is
/// where a person gives the key.
const OPEN: [&str; 4] = ["/", "/v2/health/live", "/v2/health/ready", "/openapi.json"];

/// What the handlers share.
#[derive(Debug, Clone)]
struct Rest {
    service: Arc<Service>,
    bodies: Arc<Bodies>,
}

/// All routes.
pub fn router(gate: RequestGate) -> Router {
    let rest = Rest {
        service: gate.service.clone(),
        bodies: gate.bodies.clone(),
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
        .route("/page/{file}", get(page::part))
        .route("/v1/about", get(about::about_server))
        .route("/v1/samples/{class}/{file}", get(about::draw))
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
        .route("/openapi.json", get(health::description))
        .merge(inference)
        .fallback(errors::no_such_route)
        .method_not_allowed_fallback(errors::wrong_method)
        .with_state(rest);
    around(routes, gate, PROTOCOL)
}

fn is_open(path: &str) -> bool {
    OPEN.contains(&path) || path.starts_with(page::FOLDER)
}

fn label(request: &Request) -> Label {
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("none", MatchedPath::as_str).to_owned();
    Label {
        method: method_label(request.method()),
        quiet: route.starts_with("/v2/health") || route == "/metrics",
        route,
    }
}

/// A method as a label: a client may invent any.
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

/// The model, and perhaps the version, that a path names.
#[derive(Debug, serde::Deserialize)]
struct Target {
    model: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let path: Result<Path<Self>, _> = parts.extract().await;
        Ok(path.map_err(unreadable_path)?.0)
    }
}

//! The server over HTTP: the Open Inference Protocol's REST half with the binary tensor and model
//! repository extensions, uploads of images, a page for people, metrics and the description of all
//! that.

mod about;
mod body;
mod errors;
mod explain;
mod form;
mod health;
mod infer;
mod layers;
mod leftover;
mod numbers;
mod openapi;
mod origin;
mod page;
mod people;
mod predict;
mod repository;
mod tensors;
mod types;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::routing::{get, post};
use axum::{RequestPartsExt, Router, middleware};
use tower_http::decompression::RequestDecompressionLayer;

use self::body::Bodies;
pub use self::body::BodyLimits;
use self::errors::Refusal;
pub use self::numbers::Numbers;
pub use self::openapi::openapi;
pub use self::tensors::{Request, parse};
pub use self::types::{InferRequest, InferResponse};
use super::{ApiKeys, ServeError, Service};

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Rest {
    service: Arc<Service>,
    keys: Option<Arc<ApiKeys>>,
    bodies: Arc<Bodies>,
    /// The names of a server that only its own machine reaches.
    names: Option<Arc<[String]>>,
}

impl Rest {
    /// Handlers of `service`, for all or for those who have a key.
    #[must_use]
    pub fn new(service: Arc<Service>, keys: Option<Arc<ApiKeys>>, limits: BodyLimits) -> Self {
        let bodies = Arc::new(Bodies::new(limits));
        Self {
            service,
            keys,
            bodies,
            names: None,
        }
    }

    /// Has browsers refused that call the server by another name than `names`, `localhost` or an
    /// address: for servers that only their own machine reaches.
    #[must_use]
    pub fn known_as(self, names: &[String]) -> Self {
        Self {
            names: Some(names.into()),
            ..self
        }
    }
}

/// All routes.
pub fn router(rest: Rest) -> Router {
    let inference = Router::new()
        .route("/v2/models/{model}/infer", post(infer::infer))
        .route(
            "/v2/models/{model}/versions/{version}/infer",
            post(infer::infer_version),
        )
        .route("/v1/predict", post(predict::predict))
        .route("/v1/explain", post(explain::explain))
        .layer(RequestDecompressionLayer::new());
    Router::new()
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
        .layer(middleware::from_fn_with_state(
            rest.clone(),
            layers::authorize,
        ))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(
            errors::panicked,
        ))
        .layer(middleware::from_fn_with_state(
            rest.clone(),
            layers::observe,
        ))
        .with_state(rest)
}

/// The model, and perhaps the version, that a path names.
#[derive(Debug)]
struct Target {
    model: String,
    version: Option<String>,
}

#[derive(serde::Deserialize)]
struct TargetPath {
    model: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let path: Result<axum::extract::Path<TargetPath>, _> = parts.extract().await;
        let wrong = |_| ServeError::Invalid("the path is not percent-encoded UTF-8".into());
        let TargetPath { model, version } = path.map_err(wrong)?.0;
        Ok(Self { model, version })
    }
}

//! How refusals look over HTTP.

#![allow(
    clippy::unused_async,
    reason = "handlers are async, whether they wait or not"
)]

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::types::ErrorBody;
use crate::ServeError;

/// A refusal on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal(ServeError);

/// Why a response is none of success; read by the layer that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cause(pub(super) &'static str);

impl From<ServeError> for Refusal {
    fn from(error: ServeError) -> Self {
        Self(error)
    }
}

/// The status that stands for an error.
fn status(error: &ServeError) -> StatusCode {
    match error {
        ServeError::Invalid(_) => StatusCode::BAD_REQUEST,
        ServeError::Unsupported(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ServeError::Unauthorized => StatusCode::UNAUTHORIZED,
        ServeError::Forbidden(_) => StatusCode::FORBIDDEN,
        ServeError::Unknown(_) => StatusCode::NOT_FOUND,
        ServeError::TooSlow(_) => StatusCode::REQUEST_TIMEOUT,
        ServeError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        ServeError::Unloadable { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        ServeError::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        ServeError::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
        ServeError::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ServeError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let mut response = answer(status(&error), error.to_string(), error.cause());
        let headers = response.headers_mut();
        match error {
            ServeError::Overloaded { retry_after, .. } => {
                headers.insert(header::RETRY_AFTER, retry_after.as_secs().into());
            }
            ServeError::NotReady(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            ServeError::Unauthorized => {
                let scheme = HeaderValue::from_static("Bearer");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            // What is left of the body is not read, so the connection cannot go on.
            ServeError::TooSlow(_) | ServeError::TooLarge { .. } => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// For a path that cannot be read.
pub(super) fn unreadable_path(_: PathRejection) -> ServeError {
    ServeError::Invalid("the path is not percent-encoded UTF-8".into())
}

fn answer(status: StatusCode, error: String, cause: &'static str) -> Response {
    let mut response = (status, Json(ErrorBody { error })).into_response();
    response.extensions_mut().insert(Cause(cause));
    response
}

pub(super) async fn no_such_route(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(100).collect();
    let message = format!("there is nothing at `{path}`; /openapi.json lists what there is");
    answer(StatusCode::NOT_FOUND, message, "unknown")
}

pub(super) async fn wrong_method(method: Method) -> Response {
    let message = format!("{method} is not answered here; the header `Allow` says what is");
    answer(StatusCode::METHOD_NOT_ALLOWED, message, "invalid")
}

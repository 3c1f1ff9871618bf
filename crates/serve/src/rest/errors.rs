//! Conversion of errors to HTTP responses.

#![allow(clippy::unused_async, reason = "axum handlers must be async")]

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::types::ErrorBody;
use crate::ServeError;

/// An error as a response.
#[derive(Debug)]
pub(super) struct HttpError(ServeError);

/// Cause of an error response, an extension that the metrics layer reads.
#[derive(Debug, Clone, Copy)]
pub(super) struct ErrorCause(pub(super) &'static str);

impl From<ServeError> for HttpError {
    fn from(error: ServeError) -> Self {
        Self(error)
    }
}

/// Returns the status of an error.
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

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let mut response = respond(status(&error), error.to_string(), error.cause());
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
            // The rest of the body is not read, so the connection cannot be reused.
            ServeError::TooSlow(_) | ServeError::TooLarge { .. } => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// Returns the error for a malformed path.
pub(super) fn path_error(_: PathRejection) -> ServeError {
    ServeError::Invalid("the path is not percent-encoded UTF-8".into())
}

fn respond(status: StatusCode, error: String, cause: &'static str) -> Response {
    let mut response = (status, Json(ErrorBody { error })).into_response();
    response.extensions_mut().insert(ErrorCause(cause));
    response
}

pub(super) async fn no_such_route(uri: Uri) -> Response {
    let path: String = uri.path().chars().take(100).collect();
    let message = format!("unknown path `{path}`; /openapi.json lists the paths");
    respond(StatusCode::NOT_FOUND, message, "unknown")
}

pub(super) async fn wrong_method(method: Method) -> Response {
    let message = format!(
        "the method {method} is not supported here; the header `Allow` lists the supported ones"
    );
    respond(StatusCode::METHOD_NOT_ALLOWED, message, "invalid")
}

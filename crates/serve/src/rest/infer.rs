//! Inference routes of the Open Inference Protocol.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::errors::HttpError;
use super::types::{InferErrors, InferRequest, InferResponse};
use super::{ModelPath, RestState, tensors};
use crate::{ParsedRequest, ServeError};

const JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");
const TIMEOUT: HeaderName = HeaderName::from_static("timeout");

/// Run inference with the newest version of a model
#[utoipa::path(
    post, path = "/v2/models/{model}/infer", tag = "inference",
    params(
        ("model" = String, Path, description = "Model name"),
        ("timeout" = Option<String>, Header, description = "Maximum processing time: seconds, or \
          a number with a unit, for example 250ms"),
        ("inference-header-content-length" = Option<u64>, Header, description = "Length of the \
          JSON in bytes, if binary tensors follow it"),
    ),
    request_body = InferRequest,
    responses(
        (status = 200, description = "The model's outputs", content(
            (InferResponse = "application/json"),
            (Vec<u8> = "application/octet-stream"),
        )),
        InferErrors
    ),
)]
pub(super) async fn infer(
    State(state): State<RestState>,
    path: ModelPath,
    request: Request,
) -> Result<Response, HttpError> {
    Ok(state.infer(path, request).await?)
}

/// Run inference with one version of a model
#[utoipa::path(
    post, path = "/v2/models/{model}/versions/{version}/infer", tag = "inference",
    params(
        ("model" = String, Path, description = "Model name"),
        ("version" = String, Path, description = "Model version"),
        ("timeout" = Option<String>, Header, description = "As for the newest version"),
        ("inference-header-content-length" = Option<u64>, Header, description = "As for the \
          newest version"),
    ),
    request_body = InferRequest,
    responses(
        (status = 200, description = "The model's outputs", content(
            (InferResponse = "application/json"),
            (Vec<u8> = "application/octet-stream"),
        )),
        InferErrors
    ),
)]
pub(super) async fn infer_version(
    State(state): State<RestState>,
    path: ModelPath,
    request: Request,
) -> Result<Response, HttpError> {
    Ok(state.infer(path, request).await?)
}

impl RestState {
    async fn infer(&self, path: ModelPath, request: Request) -> Result<Response, ServeError> {
        let _accepted = self.service.lifecycle().accept()?;
        let model = self.service.model(&path.model, path.version.as_deref())?;
        let (parts, body) = request.into_parts();
        let timeout = timeout(&parts.headers)?;
        let json_len = header_text(&parts.headers, &JSON_LENGTH)?;
        let read = self.body_reader.read(&parts.headers, body).await?;
        let bytes = read.bytes.clone();
        let parse = move |spec: &_| -> Result<ParsedRequest<_>, _> {
            tensors::parse(&bytes, json_len.as_deref(), spec)
        };
        let (output, format) = self.service.infer(&model, timeout, parse).await?;
        let (body, json_len) = tensors::write(format, &model, output)?;
        Ok(respond(body, json_len))
    }
}

fn respond(body: Vec<u8>, json_len: Option<usize>) -> Response {
    let content_type = match json_len {
        None => "application/json",
        Some(_) => "application/octet-stream",
    };
    let content_type = HeaderValue::from_static(content_type);
    let mut response = Body::from(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    if let Some(len) = json_len {
        headers.insert(JSON_LENGTH, len.into());
    }
    response
}

/// Returns the value of an optional header.
fn header_text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, ServeError> {
    let value = headers
        .get(name)
        .map(|value| value.to_str().map(str::to_owned));
    let value = value.transpose();
    value.map_err(|_| ServeError::Invalid(format!("the header `{name}` is not ASCII text")))
}

/// Returns the value of the header `timeout`: seconds, or a number with a unit.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, ServeError> {
    let Some(text) = header_text(headers, &TIMEOUT)? else {
        return Ok(None);
    };
    let seconds = text.trim().parse().ok().map(Duration::try_from_secs_f64);
    let time = seconds.map_or_else(|| humantime::parse_duration(&text).ok(), Result::ok);
    time.map(Some).ok_or_else(|| {
        ServeError::Invalid(
            "the header `timeout` must be a number of seconds, or a number with a unit such as \
             250ms"
                .into(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_seconds_or_have_a_unit() {
        let parse = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, text.parse().unwrap());
            timeout(&headers)
        };
        assert_eq!(timeout(&HeaderMap::new()), Ok(None));
        assert_eq!(parse("1.5"), Ok(Some(Duration::from_millis(1500))));
        assert_eq!(parse("0"), Ok(Some(Duration::ZERO)));
        assert_eq!(parse("250ms"), Ok(Some(Duration::from_millis(250))));
        for bad in ["", "-1", "nan", "inf", "1e300", "soon", "5 parsecs"] {
            assert_eq!(parse(bad).unwrap_err().cause(), "invalid", "{bad}");
        }
    }
}

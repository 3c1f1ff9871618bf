//! What happens around every request: it gets an id, is let in, is counted, logged and traced.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::gauge::Gauge;
use tracing::Instrument;

use super::errors::{Cause, Refusal};
use super::leftover::lend;
use super::{Rest, origin, page};
use crate::serve::{Metrics, ServeError, Trace};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Paths that need no key: probes have none, the description holds no secret, and the page is
/// where a person gives the key.
const OPEN: [&str; 4] = ["/", "/v2/health/live", "/v2/health/ready", "/openapi.json"];

/// Gives the request an id, unless it has one, and counts, logs and traces what becomes of it.
pub(super) async fn observe(State(rest): State<Rest>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let method = method_label(request.method());
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or("none", MatchedPath::as_str).to_owned();
    let path = request.uri().path().to_owned();
    // Probes and scrapes would drown everything else.
    let quiet = route.starts_with("/v2/health") || route == "/metrics";
    let trace = if quiet {
        Trace::default()
    } else {
        Trace::begin(request.headers(), || format!("{method} {route}"))
    };
    let id_text = id.to_str().unwrap_or_default();
    trace.texts(&[
        ("http.request.method", method),
        ("http.route", &route),
        ("url.path", &path),
        ("rgby.request_id", id_text),
    ]);
    let metrics = rest.service.metrics();
    let mut open = Open::new(metrics, &trace);
    let span = tracing::info_span!("request", id = id_text, trace_id = trace.id());
    let (request, leftover) = lend(request);
    let response = trace.around(next.run(request));
    let mut response = response.instrument(span.clone()).await;
    if !response.headers().contains_key(header::CONNECTION) {
        rest.bodies.forget(leftover).await;
    }
    open.answered = true;
    let status = response.status().as_u16();
    metrics.answered(method, &route, status);
    let cause = response.extensions().get::<Cause>().map(|cause| cause.0);
    if let Some(cause) = cause {
        metrics.failed(cause);
        trace.fail(cause);
    }
    trace.number("http.response.status_code", status.into());
    trace.end();
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let _entered = span.enter();
    if quiet {
        tracing::debug!(method, path, status, ms, "answered");
    } else {
        tracing::info!(method, path, status, ms, cause, "answered");
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if rest.service.lifecycle().is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Lets requests pass that have a key, or need none, and that no page of somebody else's sends.
pub(super) async fn authorize(State(rest): State<Rest>, request: Request, next: Next) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    if let Err(error) = origin::check(method, uri, headers, rest.names.as_deref()) {
        return Refusal::from(error).into_response();
    }
    let Some(keys) = &rest.keys else {
        return next.run(request).await;
    };
    let path = uri.path();
    let allowed = OPEN.contains(&path)
        || path.starts_with(page::FOLDER)
        || key(headers).is_some_and(|key| keys.allow(key));
    if allowed {
        next.run(request).await
    } else {
        Refusal::from(ServeError::Unauthorized).into_response()
    }
}

/// The key that a request shows.
fn key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get(API_KEY) {
        return Some(key.as_bytes());
    }
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked("bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then_some(key.trim_ascii())
}

/// The client's id of the request, if it is fit for a log, else one of our own.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    const MOST: usize = 128;
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=MOST).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        // Digits are always a valid value.
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
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

/// A request that is being answered. If it is dropped before, its client has left.
struct Open<'a> {
    metrics: &'a Metrics,
    gauge: &'a Gauge,
    trace: &'a Trace,
    answered: bool,
}

impl<'a> Open<'a> {
    fn new(metrics: &'a Metrics, trace: &'a Trace) -> Self {
        let gauge = metrics.open();
        gauge.inc();
        Self {
            metrics,
            gauge,
            trace,
            answered: false,
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
        if !self.answered {
            self.metrics.failed("client_left");
            self.trace.fail("client_left");
            self.trace.end();
        }
    }
}

//! Layers around the handlers: request id, access checks, metrics, log and trace.

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use prometheus_client::metrics::gauge::Gauge;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;

use super::unread_body::share;
use super::{RequestGate, origin};
use crate::{Metrics, ServeError, Trace};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The parts of the layers that differ between protocols.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProtocolAdapter {
    /// OpenTelemetry attribute names of method, route and status.
    pub attributes: [&'static str; 3],
    /// Returns the labels of a request in metrics and traces.
    pub label: fn(&Request) -> RouteLabel,
    /// Returns whether a path needs no API key.
    pub is_open: fn(&str) -> bool,
    /// Converts an error to a response.
    pub refuse: fn(ServeError) -> Response,
    /// Returns status and error cause of a response.
    pub outcome: fn(&Response) -> RequestOutcome,
}

/// Labels of a request. They have few possible values, because a client can send any method and
/// path.
#[derive(Debug)]
pub(crate) struct RouteLabel {
    pub method: &'static str,
    pub route: String,
    /// Whether the request is a health probe or a metrics scrape, which the log omits by default.
    pub quiet: bool,
}

/// Result of a request.
#[derive(Debug)]
pub(crate) struct RequestOutcome {
    /// HTTP status or gRPC code.
    pub status: u16,
    /// [Cause](ServeError::cause) of a failure.
    pub cause: Option<&'static str>,
}

/// Adds the layers to a protocol's handlers.
pub(crate) fn with_layers(
    handlers: Router,
    gate: RequestGate,
    protocol: ProtocolAdapter,
) -> Router {
    let ProtocolAdapter { refuse, .. } = protocol;
    let panicked = move |_: Box<dyn Any + Send + 'static>| {
        tracing::error!("a handler panicked");
        let message = "internal error; see the server's log";
        refuse(ServeError::Failed(message.into()))
    };
    let state = (gate, protocol);
    handlers
        .layer(from_fn_with_state(state.clone(), authorize))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state, observe))
}

/// Sets the request id if there is none, and records metrics, log and trace of the request.
async fn observe(
    State((gate, protocol)): State<(RequestGate, ProtocolAdapter)>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let RouteLabel {
        method,
        route,
        quiet,
    } = (protocol.label)(&request);
    let path = request.uri().path().to_owned();
    let trace = if quiet {
        Trace::default()
    } else {
        Trace::begin(request.headers(), || format!("{method} {route}"))
    };
    let id_text = id.to_str().unwrap_or_default();
    let [method_key, route_key, status_key] = protocol.attributes;
    trace.texts(&[
        (method_key, method),
        (route_key, &route),
        ("url.path", &path),
        ("rgby.request_id", id_text),
    ]);
    let metrics = gate.service.metrics();
    let mut open = OpenRequest::new(metrics, &trace);
    let span = tracing::info_span!("request", id = id_text, trace_id = trace.id());
    let (request, unread) = share(request);
    let response = trace.scope(next.run(request));
    let mut response = response.instrument(span.clone()).await;
    if !response.headers().contains_key(header::CONNECTION) {
        gate.body_reader.discard(unread).await;
    }
    open.finished = true;
    let RequestOutcome { status, cause } = (protocol.outcome)(&response);
    metrics.count_response(method, &route, status);
    if let Some(cause) = cause {
        metrics.count_error(cause);
        trace.fail(cause);
    }
    trace.number(status_key, status.into());
    trace.end();
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let _entered = span.enter();
    if quiet {
        tracing::debug!(method, path, status, ms, "finished");
    } else {
        tracing::info!(method, path, status, ms, cause, "finished");
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    if gate.service.lifecycle().is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Rejects requests of web pages of other origins, and requests without a required API key.
async fn authorize(
    State((gate, protocol)): State<(RequestGate, ProtocolAdapter)>,
    request: Request,
    next: Next,
) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    if let Err(error) = origin::check(method, uri, headers, gate.host_names.as_deref()) {
        return (protocol.refuse)(error);
    }
    let Some(keys) = &gate.keys else {
        return next.run(request).await;
    };
    let allowed = (protocol.is_open)(uri.path()) || key(headers).is_some_and(|key| keys.allow(key));
    if allowed {
        next.run(request).await
    } else {
        (protocol.refuse)(ServeError::Unauthorized)
    }
}

/// Returns the API key of a request.
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

/// Returns the client's request id if it is safe to log, else a random one.
///
/// `tower-http`'s `SetRequestIdLayer` was considered and refused. It keeps any id that the client
/// sends, so another layer would have to check the length and the characters.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    const MAX_LEN: usize = 128;
    let given = headers.get(REQUEST_ID).filter(|id| {
        let bytes = id.as_bytes();
        (1..=MAX_LEN).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
    });
    given.cloned().unwrap_or_else(|| {
        let id = format!("{:032x}", rand::random::<u128>());
        // Hexadecimal digits are always a valid header value.
        HeaderValue::from_str(&id).unwrap_or_else(|_| HeaderValue::from_static("none"))
    })
}

/// Guard of a request in progress. If it is dropped before the request has finished, the client has
/// disconnected.
struct OpenRequest<'a> {
    metrics: &'a Metrics,
    gauge: &'a Gauge,
    trace: &'a Trace,
    finished: bool,
}

impl<'a> OpenRequest<'a> {
    fn new(metrics: &'a Metrics, trace: &'a Trace) -> Self {
        let gauge = metrics.open_requests();
        gauge.inc();
        Self {
            metrics,
            gauge,
            trace,
            finished: false,
        }
    }
}

impl Drop for OpenRequest<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
        if !self.finished {
            self.metrics.count_error("client_left");
            self.trace.fail("client_left");
            self.trace.end();
        }
    }
}

//! What happens around every request: it gets an id, is let in, is counted, logged and traced.

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

use super::leftover::lend;
use super::{RequestGate, origin};
use crate::{Metrics, ServeError, Trace};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// How one protocol differs from another in what happens around its requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Protocol {
    /// What OpenTelemetry calls method, route and status of its requests.
    pub attributes: [&'static str; 3],
    /// What a request is counted as.
    pub label: fn(&Request) -> Label,
    /// Whether a path needs no key.
    pub is_open: fn(&str) -> bool,
    /// How a refusal looks.
    pub refuse: fn(ServeError) -> Response,
    /// What a response says.
    pub outcome: fn(&Response) -> RequestOutcome,
}

/// What a request is counted as. A client may invent any method or path, so that these must not be
/// its own words.
#[derive(Debug)]
pub(crate) struct Label {
    /// The method.
    pub method: &'static str,
    /// The route.
    pub route: String,
    /// Whether it is a probe or a scrape, which would drown everything else in the log.
    pub quiet: bool,
}

/// What became of a request.
#[derive(Debug)]
pub(crate) struct RequestOutcome {
    /// The protocol's number for it.
    pub status: u16,
    /// Why there is no result, if there is none.
    pub cause: Option<&'static str>,
}

/// Handlers and all that happens around them.
pub(crate) fn around(handlers: Router, gate: RequestGate, protocol: Protocol) -> Router {
    let Protocol { refuse, .. } = protocol;
    let panicked = move |_: Box<dyn Any + Send + 'static>| {
        tracing::error!("a handler panicked");
        let message = "this should not have happened; the server's log says more";
        refuse(ServeError::Failed(message.into()))
    };
    let state = (gate, protocol);
    handlers
        .layer(from_fn_with_state(state.clone(), authorize))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state, observe))
}

/// Gives the request an id, unless it has one, and counts, logs and traces what becomes of it.
async fn observe(
    State((gate, protocol)): State<(RequestGate, Protocol)>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let Label {
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
    let mut open = Open::new(metrics, &trace);
    let span = tracing::info_span!("request", id = id_text, trace_id = trace.id());
    let (request, leftover) = lend(request);
    let response = trace.around(next.run(request));
    let mut response = response.instrument(span.clone()).await;
    if !response.headers().contains_key(header::CONNECTION) {
        gate.bodies.forget(leftover).await;
    }
    open.answered = true;
    let RequestOutcome { status, cause } = (protocol.outcome)(&response);
    metrics.answered(method, &route, status);
    if let Some(cause) = cause {
        metrics.failed(cause);
        trace.fail(cause);
    }
    trace.number(status_key, status.into());
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
    if gate.service.lifecycle().is_draining() {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Lets requests pass that have a key, or need none, and that no page of somebody else's sends.
async fn authorize(
    State((gate, protocol)): State<(RequestGate, Protocol)>,
    request: Request,
    next: Next,
) -> Response {
    let (method, uri, headers) = (request.method(), request.uri(), request.headers());
    if let Err(error) = origin::check(method, uri, headers, gate.names.as_deref()) {
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

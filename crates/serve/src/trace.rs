//! OpenTelemetry traces: one span per request, and one child span per stage. The request span
//! continues the client's trace if the request has a W3C `traceparent` header.
//!
//! A stage's span is created when the stage ends, from times that are measured anyway, and exported
//! by a background thread. Nothing is created if tracing is off or the request is not sampled.
//! Spans contain no request header except the request id.
//!
//! `tracing-opentelemetry` 0.34 was considered and refused, for three reasons:
//!
//! - It ends a span only when all handles and child spans are closed. A request span would last
//!   until the end of a streamed explanation, or until a cancelled job has left the queue.
//! - It cannot create a span with an earlier start time. Stages that fail or expire, which are not
//!   exported, would have to be spans before their result is known.
//! - The spans of logs and traces would still differ, because all fields of a span appear in the
//!   log.

mod collector;

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use axum::http::{HeaderMap, HeaderName};
use opentelemetry::context::FutureExt;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;

pub use self::collector::{Collector, TraceError};

/// The [causes](crate::ServeError::cause) that are errors of the server.
const SERVER_ERRORS: [&str; 3] = ["failed", "deadline", "not_ready"];

/// The tracer of the process.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The trace of one request; empty if the request is not recorded. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Option<Context>);

impl Trace {
    /// Starts the span of a request with these headers. `name` is called only if tracing is on.
    #[must_use]
    pub fn begin(headers: &HeaderMap, name: impl FnOnce() -> String) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        let root = Context::new();
        let parent =
            TraceContextPropagator::new().extract_with_context(&root, &TraceHeaders(headers));
        let builder = tracer.span_builder(name()).with_kind(SpanKind::Server);
        let span = tracer.build_with_context(builder, &parent);
        Self::of(parent.with_span(span))
    }

    /// Returns the trace of the request that the calling task [belongs to](Self::scope).
    #[must_use]
    pub fn current() -> Self {
        Self::of(Context::current())
    }

    fn of(context: Context) -> Self {
        let recording = context.span().is_recording();
        Self(recording.then_some(context))
    }

    /// Runs `work` with this trace as the [current](Self::current) one.
    pub async fn scope<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }

    /// Returns the trace id, which links log lines to traces.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        let context = self.0.as_ref()?;
        Some(context.span().span_context().trace_id().to_string())
    }

    /// Sets text attributes of the request span, truncated to 256 characters.
    pub fn texts(&self, texts: &[(&'static str, &str)]) {
        const MAX_CHARS: usize = 256;
        for (key, text) in texts {
            self.set(key, || text.chars().take(MAX_CHARS).collect::<String>());
        }
    }

    /// Sets a numeric attribute of the request span.
    pub fn number(&self, key: &'static str, number: i64) {
        self.set(key, || number);
    }

    fn set<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Records the cause of a failure. The span's status becomes an error only for server errors.
    pub fn fail(&self, cause: &'static str) {
        self.set("error.type", || cause);
        if let (Some(context), true) = (&self.0, SERVER_ERRORS.contains(&cause)) {
            context.span().set_status(Status::error(cause));
        }
    }

    /// Records a stage that ends now, with numeric attributes.
    pub fn stage(&self, name: &'static str, start: Instant, numbers: &[(&'static str, usize)]) {
        let (Some(context), Some(tracer)) = (&self.0, TRACER.get()) else {
            return;
        };
        let end = SystemTime::now();
        let numbers = numbers.iter();
        let numbers = numbers.map(|(key, number)| KeyValue::new(*key, *number as i64));
        let builder = tracer.span_builder(name).with_attributes(numbers);
        let builder = builder.with_start_time(end - start.elapsed());
        let mut span = tracer.build_with_context(builder, context);
        span.end_with_timestamp(end);
    }

    /// Ends the request span. Stages that end later are still its children.
    pub fn end(&self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// Adapter of request headers for the propagator.
struct TraceHeaders<'a>(&'a HeaderMap);

impl Extractor for TraceHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

//! What becomes of a request, as a trace of OpenTelemetry's: a span for the request, below that of
//! its client if the request names one (W3C `traceparent`), and a span below it for each stage.
//!
//! A stage's span is made when the stage is over, with the times that were measured anyway, and
//! given to a thread that sends it. So nothing here waits, and where no traces are wanted, or not
//! of this request, nothing is made. What is in a span is named here and where stages end; no
//! header of a request is, but for its id.

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

/// The [causes](crate::ServeError::cause) that are no fault of the client's.
const OURS: [&str; 3] = ["failed", "deadline", "not_ready"];

/// As of the log, there is one in a process.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// The trace of one request, or nothing where none is recorded. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Trace(Option<Context>);

impl Trace {
    /// Begins the span of a request with these headers. `name` is not asked where it is not needed.
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

    /// That of the request that the calling task is [for](Self::around).
    #[must_use]
    pub fn current() -> Self {
        Self::of(Context::current())
    }

    fn of(context: Context) -> Self {
        let recording = context.span().is_recording();
        Self(recording.then_some(context))
    }

    /// Does work for the request.
    pub async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(context) => work.with_context(context.clone()).await,
            None => work.await,
        }
    }

    /// The trace's id, by which logs and traces are brought together.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        let context = self.0.as_ref()?;
        Some(context.span().span_context().trace_id().to_string())
    }

    /// Notes something about the request; of long texts the beginning.
    pub fn texts(&self, texts: &[(&'static str, &str)]) {
        const MOST: usize = 256;
        for (key, text) in texts {
            self.note(key, || text.chars().take(MOST).collect::<String>());
        }
    }

    /// Notes a number about the request.
    pub fn number(&self, key: &'static str, number: i64) {
        self.note(key, || number);
    }

    fn note<V: Into<Value>>(&self, key: &'static str, value: impl FnOnce() -> V) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value()));
        }
    }

    /// Notes why the request has no result. The span failed only if that is the server's fault.
    pub fn fail(&self, cause: &'static str) {
        self.note("error.type", || cause);
        if let (Some(context), true) = (&self.0, OURS.contains(&cause)) {
            context.span().set_status(Status::error(cause));
        }
    }

    /// Notes a stage that began then and is over, with some numbers about it.
    pub fn stage(&self, name: &'static str, began: Instant, numbers: &[(&'static str, usize)]) {
        let (Some(context), Some(tracer)) = (&self.0, TRACER.get()) else {
            return;
        };
        let end = SystemTime::now();
        let numbers = numbers.iter();
        let numbers = numbers.map(|(key, number)| KeyValue::new(*key, *number as i64));
        let builder = tracer.span_builder(name).with_attributes(numbers);
        let builder = builder.with_start_time(end - began.elapsed());
        let mut span = tracer.build_with_context(builder, context);
        span.end_with_timestamp(end);
    }

    /// Ends the request's span; stages that end later are still below it.
    pub fn end(&self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// A request's headers as the propagator reads them.
struct TraceHeaders<'a>(&'a HeaderMap);

impl Extractor for TraceHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

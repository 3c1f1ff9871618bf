//! Prometheus metrics of the server.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Histogram buckets of durations in seconds, from half a millisecond to half a minute.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];
/// Histogram buckets of batch sizes in images.
const IMAGES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The server's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    errors: Family<CauseLabels, Counter>,
    open_requests: Gauge,
    stages: Family<StageLabels, Histogram, HistogramBuckets>,
    batches: Family<ModelLabels, Histogram, HistogramBuckets>,
    depths: Family<ModelLabels, Gauge>,
    models: Family<VersionLabels, Gauge>,
}

/// Metrics of one model, looked up once to avoid label lookups per request.
#[derive(Debug, Clone)]
pub(super) struct ModelMetrics {
    /// Batch sizes in images.
    pub batch: Histogram,
    /// Number of images that are queued or being prepared.
    pub depth: Gauge,
    stages: [Histogram; 4],
}

/// A stage of an inference request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RequestStage {
    /// Parse, decode and resize.
    Prepare,
    /// Wait for a session and for the batch to fill.
    Queue,
    /// Run the session on a batch.
    Infer,
    /// From the complete request body to the output.
    Total,
}

impl EncodeLabelValue for RequestStage {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        let name = match self {
            Self::Prepare => "prepare",
            Self::Queue => "queue",
            Self::Infer => "infer",
            Self::Total => "total",
        };
        name.encode(encoder)
    }
}

/// All stages in the order of their declaration.
const STAGES: [RequestStage; 4] = [
    RequestStage::Prepare,
    RequestStage::Queue,
    RequestStage::Infer,
    RequestStage::Total,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabels {
    cause: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    model: String,
    stage: RequestStage,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    model: String,
    version: String,
    sha256: String,
}

/// Constructor of histograms with these upper bounds.
#[derive(Debug, Clone)]
struct HistogramBuckets(&'static [f64]);

impl MetricConstructor<Histogram> for HistogramBuckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("rgby");
        let metrics = Self {
            requests: Family::default(),
            errors: Family::default(),
            open_requests: Gauge::default(),
            stages: Family::new_with_constructor(HistogramBuckets(&SECONDS)),
            batches: Family::new_with_constructor(HistogramBuckets(&IMAGES)),
            depths: Family::default(),
            models: Family::default(),
            registry: Registry::default(),
        };
        let requests = metrics.requests.clone();
        registry.register("requests", "Requests by route and status", requests);
        let errors = metrics.errors.clone();
        registry.register("errors", "Failed requests by cause", errors);
        let open = metrics.open_requests.clone();
        registry.register("requests_open", "Requests in progress", open);
        let help = "Time that inference requests spend in each stage";
        let stages = metrics.stages.clone();
        registry.register_with_unit("stage_duration", help, Unit::Seconds, stages);
        let batches = metrics.batches.clone();
        registry.register("batch_images", "Images in a batch", batches);
        let depths = metrics.depths.clone();
        registry.register("queue_images", "Images in the queue", depths);
        let models = metrics.models.clone();
        let help = "Loaded models: 1 if loaded, 0 if unloaded";
        registry.register("model_info", help, models);
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// Returns all metrics in the text format `OpenMetrics` 1.0.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Counts a response.
    pub(super) fn count_response(&self, method: &'static str, route: &str, status: u16) {
        let labels = RequestLabels {
            method,
            route: route.to_owned(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a failed request.
    pub(super) fn count_error(&self, cause: &'static str) {
        self.errors.get_or_create(&CauseLabels { cause }).inc();
    }

    /// Returns the number of requests in progress.
    #[must_use]
    pub(super) fn open_requests(&self) -> &Gauge {
        &self.open_requests
    }

    /// Returns the metrics of a model, shared by all of its versions.
    #[must_use]
    pub(super) fn model(&self, name: &str) -> ModelMetrics {
        let model = || name.to_owned();
        let labels = ModelLabels { model: model() };
        let stage = |stage| {
            let labels = StageLabels {
                model: model(),
                stage,
            };
            self.stages.get_or_create_owned(&labels)
        };
        ModelMetrics {
            batch: self.batches.get_or_create_owned(&labels),
            depth: self.depths.get_or_create_owned(&labels),
            stages: STAGES.map(stage),
        }
    }

    /// Records that a model was loaded or unloaded.
    pub(super) fn set_loaded(&self, [model, version, sha256]: [&str; 3], loaded: bool) {
        let labels = VersionLabels {
            model: model.to_owned(),
            version: version.to_owned(),
            sha256: sha256.to_owned(),
        };
        // Counted, because a reloaded model overlaps with the previous instance.
        let model = self.models.get_or_create(&labels);
        if loaded {
            model.inc();
        } else {
            model.dec();
        }
    }
}

impl ModelMetrics {
    /// Records the duration of a stage.
    pub fn observe(&self, stage: RequestStage, time: Duration) {
        self.stages[stage as usize].observe(time.as_secs_f64());
    }
}

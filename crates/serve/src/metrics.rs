//! What the server counts and measures, for Prometheus.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Seconds, from half a millisecond to half a minute.
const SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];
const IMAGES: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The server's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    errors: Family<CauseLabels, Counter>,
    open: Gauge,
    stages: Family<StageLabels, Histogram, Buckets>,
    batches: Family<ModelLabels, Histogram, Buckets>,
    depths: Family<ModelLabels, Gauge>,
    models: Family<VersionLabels, Gauge>,
}

/// One model's, at hand for those who measure.
#[derive(Debug, Clone)]
pub(super) struct ModelMetrics {
    /// Sizes of batches, in images.
    pub batch: Histogram,
    /// Images that wait or are being prepared.
    pub depth: Gauge,
    stages: [Histogram; 4],
}

/// What a request's time goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum RequestStage {
    /// Parsing, decoding, resizing.
    Prepare,
    /// Waiting for an engine, and for others to share the batch.
    Queue,
    /// The engine's work on a batch.
    Infer,
    /// From the request's body to its answer.
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

/// In the order of their declaration.
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

/// Makes histograms with those upper bounds.
#[derive(Debug, Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
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
            open: Gauge::default(),
            stages: Family::new_with_constructor(Buckets(&SECONDS)),
            batches: Family::new_with_constructor(Buckets(&IMAGES)),
            depths: Family::default(),
            models: Family::default(),
            registry: Registry::default(),
        };
        let requests = metrics.requests.clone();
        registry.register("requests", "Requests by route and status", requests);
        let errors = metrics.errors.clone();
        registry.register("errors", "Requests without a result, by cause", errors);
        let open = metrics.open.clone();
        registry.register("requests_open", "Requests that are being answered", open);
        let help = "Time that inference requests spend in each stage";
        let stages = metrics.stages.clone();
        registry.register_with_unit("stage_duration", help, Unit::Seconds, stages);
        let batches = metrics.batches.clone();
        registry.register("batch_images", "Images in a batch", batches);
        let depths = metrics.depths.clone();
        registry.register("queue_images", "Images that wait", depths);
        let models = metrics.models.clone();
        registry.register(
            "model_info",
            "Which models are loaded: 1, or 0 if it was before",
            models,
        );
        Self {
            registry,
            ..metrics
        }
    }
}

impl Metrics {
    /// All of them in the text format `OpenMetrics` 1.0.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// Counts an answered request.
    pub(super) fn answered(&self, method: &'static str, route: &str, status: u16) {
        let labels = RequestLabels {
            method,
            route: route.to_owned(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Counts a request without a result.
    pub(super) fn failed(&self, cause: &'static str) {
        self.errors.get_or_create(&CauseLabels { cause }).inc();
    }

    /// Requests that are being answered.
    #[must_use]
    pub(super) fn open(&self) -> &Gauge {
        &self.open
    }

    /// Those of the model of that name, whatever its version.
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

    /// Notes that a model is there, or no more.
    pub(super) fn loaded(&self, [model, version, sha256]: [&str; 3], there: bool) {
        let labels = VersionLabels {
            model: model.to_owned(),
            version: version.to_owned(),
            sha256: sha256.to_owned(),
        };
        // A model may be loaded again while what it was before still answers.
        let model = self.models.get_or_create(&labels);
        if there {
            model.inc();
        } else {
            model.dec();
        }
    }
}

impl ModelMetrics {
    /// Notes how long a stage took.
    pub fn observe(&self, stage: RequestStage, time: Duration) {
        self.stages[stage as usize].observe(time.as_secs_f64());
    }
}

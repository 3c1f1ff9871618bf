//! Export of traces to a collector as OTLP over HTTP with protobuf. The endpoint comes from
//! `--otlp-endpoint` or from the standard OpenTelemetry environment variables.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use reqwest::Url;

use super::TRACER;

const FLAG: &str = "--otlp-endpoint";
/// Base URL of a collector.
const BASE_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Full URL that traces are posted to.
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Maximum time to export the last spans on shutdown.
const MAX_FLUSH: Duration = Duration::from_secs(5);
/// Time to export the last spans if the drain time is used up.
const MIN_FLUSH: Duration = Duration::from_secs(1);

/// Exports traces in batches on a background thread.
#[derive(Debug)]
pub struct Collector {
    provider: SdkTracerProvider,
    failing: Arc<AtomicBool>,
}

/// Traces cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error(
        "{name}: {reason}\nhint: set the URL of an OTLP/HTTP collector, for example \
         http://127.0.0.1:4318"
    )]
    Url {
        /// The flag or the variable.
        name: &'static str,
        reason: String,
    },
    #[error("{name}: unsupported value `{value}`\nhint: {hint}")]
    Variable {
        name: &'static str,
        value: String,
        hint: &'static str,
    },
    #[error("cannot create the client that sends traces: {0}\nhint: install CA certificates")]
    Client(opentelemetry_otlp::ExporterBuildError),
}

impl Collector {
    /// Starts the export of traces, if `flag` or a variable sets an endpoint.
    ///
    /// # Errors
    ///
    /// Returns [`TraceError`] for an unusable endpoint or variable. An unreachable collector is not
    /// an error, because it may start later.
    pub fn connect(flag: Option<&str>) -> Result<Option<Self>, TraceError> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let Some(url) = endpoint(flag, variable)? else {
            return Ok(None);
        };
        check_sampler(variable)?;
        // Fails only if the process has already installed a provider, which works as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder().with_http();
        let exporter = exporter.with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_endpoint(url.as_str()).build();
        let exporter = exporter.map_err(TraceError::Client)?;
        let failing = Arc::new(AtomicBool::new(false));
        let exporter = LoggingExporter {
            exporter,
            failing: failing.clone(),
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(exporter)
            .build();
        let scope = InstrumentationScope::builder("rgby");
        let scope = scope.with_version(env!("CARGO_PKG_VERSION")).build();
        // A tracer that the process has already installed stays.
        let _ = TRACER.set(provider.tracer_with_scope(scope));
        tracing::info!("sending traces to {url}");
        Ok(Some(Self { provider, failing }))
    }

    /// Exports the remaining spans. Takes at most `left`, limited to the range of 1 to 5 seconds.
    pub fn finish(self, left: Duration) {
        let limit = left.clamp(MIN_FLUSH, MAX_FLUSH);
        if let Err(error) = self.provider.shutdown_with_timeout(limit)
            && !self.failing.load(Ordering::Relaxed)
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Exporter that logs once when the collector starts to fail, and once when it recovers.
#[derive(Debug)]
struct LoggingExporter {
    exporter: SpanExporter,
    failing: Arc<AtomicBool>,
}

impl opentelemetry_sdk::trace::SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "the collector does not accept traces; dropping them");
            }
            Ok(()) if failed_before => tracing::info!("the collector accepts traces again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Returns the URL that traces are posted to; `None` if tracing is off.
fn endpoint(
    flag: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Url>, TraceError> {
    let is_set_to = |name, expected: &str| {
        let value: Option<String> = variable(name);
        value.is_some_and(|value| value.eq_ignore_ascii_case(expected))
    };
    if is_set_to("OTEL_SDK_DISABLED", "true") {
        return Ok(None);
    }
    if let Some(flag) = flag {
        return Ok(Some(with_traces_path(url(FLAG, flag)?)));
    }
    if is_set_to("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let url = match (variable(TRACES_ENDPOINT), variable(BASE_ENDPOINT)) {
        (Some(full), _) => url(TRACES_ENDPOINT, &full)?,
        (None, Some(base)) => with_traces_path(url(BASE_ENDPOINT, &base)?),
        (None, None) => return Ok(None),
    };
    for name in PROTOCOLS {
        if let Some(value) = variable(name) {
            if value != "http/protobuf" {
                return Err(TraceError::Variable {
                    name,
                    value,
                    hint: "rgby sends traces as http/protobuf, usually to port 4318 of a \
                           collector; set the protocol and the endpoint accordingly, or set \
                           OTEL_TRACES_EXPORTER=none",
                });
            }
            break;
        }
    }
    Ok(Some(url))
}

fn url(name: &'static str, text: &str) -> Result<Url, TraceError> {
    let invalid = |reason: String| TraceError::Url { name, reason };
    let url = Url::parse(text).map_err(|error| invalid(format!("`{text}`: not a URL: {error}")))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(invalid(format!("`{text}` is not an http or https URL")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // The URL is not printed, because it contains a secret.
        let reason = "user name and password in the URL are not supported; use \
                      OTEL_EXPORTER_OTLP_HEADERS";
        return Err(invalid(reason.into()));
    }
    Ok(url)
}

/// Appends the standard path of traces, unless the URL already has it.
fn with_traces_path(mut base: Url) -> Url {
    let path = base.path().trim_end_matches('/').to_owned();
    if !path.ends_with("/v1/traces") {
        base.set_path(&format!("{path}/v1/traces"));
    }
    base
}

/// Rejects unknown samplers. The SDK would silently use another one.
fn check_sampler(variable: impl Fn(&str) -> Option<String>) -> Result<(), TraceError> {
    let Some(value) = variable(SAMPLER) else {
        return Ok(());
    };
    let kind = value.strip_prefix("parentbased_").unwrap_or(&value);
    match kind {
        "always_on" | "always_off" => Ok(()),
        "traceidratio" => {
            let ratio = variable(SAMPLER_ARG).unwrap_or_default();
            if ratio
                .parse()
                .is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio))
            {
                return Ok(());
            }
            Err(TraceError::Variable {
                name: SAMPLER_ARG,
                value: ratio,
                hint: "set the fraction of traces to record, from 0 to 1",
            })
        }
        _ => Err(TraceError::Variable {
            name: SAMPLER,
            value,
            hint: "set always_on, always_off or traceidratio, optionally with the prefix \
                   parentbased_",
        }),
    }
}

/// Returns the service name and version, unless the environment variables set others.
fn resource() -> Resource {
    let from_environment = Resource::builder().build();
    let is_set = |key: &'static str| {
        let value = from_environment.get_ref(&Key::new(key));
        value.is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let defaults = [
        ("service.name", "rgby"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let missing = defaults.into_iter().filter(|(key, _)| !is_set(key));
    let missing: Vec<_> = missing
        .map(|(key, value)| KeyValue::new(key, value))
        .collect();
    Resource::builder().with_attributes(missing).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(set: &'static [(&str, &str)]) -> impl Fn(&str) -> Option<String> + Copy {
        move |name| {
            let found = set.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    fn found(flag: Option<&str>, set: &'static [(&str, &str)]) -> Option<String> {
        let url = endpoint(flag, variables(set)).unwrap();
        url.map(String::from)
    }

    #[test]
    fn the_flag_takes_precedence_over_the_variables() {
        let flag = Some("http://a:4318");
        let a = Some("http://a:4318/v1/traces".to_owned());
        assert_eq!(found(None, &[]), None);
        assert_eq!(found(flag, &[(BASE_ENDPOINT, "http://b:4318")]), a);
        for same in ["http://a:4318/", "http://a:4318/v1/traces"] {
            assert_eq!(found(Some(same), &[]), a);
        }
        assert_eq!(
            found(None, &[(BASE_ENDPOINT, "https://b/collect/")]).unwrap(),
            "https://b/collect/v1/traces"
        );
        assert_eq!(
            found(
                None,
                &[
                    (BASE_ENDPOINT, "http://b"),
                    (TRACES_ENDPOINT, "http://c/here")
                ]
            )
            .unwrap(),
            "http://c/here"
        );
    }

    #[test]
    fn traces_can_be_disabled() {
        let flag = Some("http://a");
        assert_eq!(found(flag, &[("OTEL_SDK_DISABLED", "true")]), None);
        let none = &[
            (BASE_ENDPOINT, "http://b"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ];
        assert_eq!(found(None, none), None);
        assert!(found(flag, none).is_some());
    }

    #[test]
    fn unusable_endpoints_are_refused() {
        for bad in ["", "localhost:4318", "ftp://a", "unix:/a", "http://"] {
            let error = endpoint(Some(bad), variables(&[])).unwrap_err().to_string();
            assert!(error.starts_with("--otlp-endpoint: "), "{error}");
        }
        let error = endpoint(Some("http://me:secret@a"), variables(&[])).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("secret"));
        let grpc = variables(&[(BASE_ENDPOINT, "http://b:4317"), (PROTOCOLS[1], "grpc")]);
        let error = endpoint(None, grpc).unwrap_err().to_string();
        assert!(error.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: unsupported value `grpc`"));
        assert!(endpoint(Some("http://a"), grpc).is_ok());
    }

    #[test]
    fn unknown_samplers_are_refused() {
        let check = |set| check_sampler(variables(set)).map_err(|error| error.to_string());
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[(SAMPLER, "always_off")]), Ok(()));
        let tenth = &[(SAMPLER, "parentbased_traceidratio"), (SAMPLER_ARG, "0.1")];
        assert_eq!(check(tenth), Ok(()));
        let error = check(&[(SAMPLER, "jaeger_remote")]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER: unsupported value `jaeger_remote`"));
        let error = check(&[(SAMPLER, "traceidratio"), (SAMPLER_ARG, "10%")]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER_ARG: unsupported value `10%`"));
    }
}

//! Where traces go: a collector that takes OTLP over HTTP, as protobuf. A flag names it, or else
//! the variables that programs with OpenTelemetry have in common.

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
/// The URL of a collector.
const BASE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The URL that traces are posted to.
const WHOLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const PROTOCOLS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
];
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// A server's last spans are waited for so long.
const MOST: Duration = Duration::from_secs(5);
/// And so long where its own time is over.
const LEAST: Duration = Duration::from_secs(1);

/// Sends traces, in batches and on a thread of its own.
#[derive(Debug)]
pub struct Collector {
    provider: SdkTracerProvider,
    failing: Arc<AtomicBool>,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The collector's URL is none.
    #[error(
        "{name}: {reason}; give the URL of a collector that takes OTLP over HTTP, such as \
         http://127.0.0.1:4318"
    )]
    Url {
        /// The flag or the variable.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A variable asks for something else.
    #[error("{name}: is `{value}`; {wanted}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        wanted: &'static str,
    },
    /// There is no client to send them with.
    #[error("traces cannot be sent: {0}; are the system's CA certificates installed?")]
    Client(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl Collector {
    /// From now on traces go to the collector that `flag` or a variable names, if one does.
    ///
    /// # Errors
    ///
    /// As [`TraceError`] says. That the collector does not answer is none: it may come later.
    pub fn connect(flag: Option<&str>) -> Result<Option<Self>, TraceError> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let Some(url) = endpoint(flag, variable)? else {
            return Ok(None);
        };
        check_sampler(variable)?;
        // Refused only if another one was chosen before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let exporter = SpanExporter::builder().with_http();
        let exporter = exporter.with_protocol(Protocol::HttpBinary);
        let exporter = exporter.with_endpoint(url.as_str()).build()?;
        let failing = Arc::new(AtomicBool::new(false));
        let exporter = Exporter {
            exporter,
            failing: failing.clone(),
        };
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(exporter)
            .build();
        let scope = InstrumentationScope::builder("rgby");
        let scope = scope.with_version(env!("CARGO_PKG_VERSION")).build();
        // One that was started before, by a program that has this as a library, stays.
        let _ = TRACER.set(provider.tracer_with_scope(scope));
        tracing::info!("traces go to {url}");
        Ok(Some(Self { provider, failing }))
    }

    /// Sends what is left, for some seconds at most and no longer than `left` if that is more than
    /// one.
    pub fn finish(self, left: Duration) {
        let most = left.clamp(LEAST, MOST);
        if let Err(error) = self.provider.shutdown_with_timeout(most)
            && !self.failing.load(Ordering::Relaxed)
        {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Says so once if the collector fails, and once if it is well again.
#[derive(Debug)]
struct Exporter {
    exporter: SpanExporter,
    failing: Arc<AtomicBool>,
}

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !failed_before => {
                tracing::warn!(%error, "the collector takes no traces; they are lost meanwhile");
            }
            Ok(()) if failed_before => tracing::info!("the collector takes traces again"),
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

/// The URL that traces are posted to; `None` if nobody asks for them.
fn endpoint(
    flag: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<Url>, TraceError> {
    let says = |name, word: &str| {
        let value: Option<String> = variable(name);
        value.is_some_and(|value| value.eq_ignore_ascii_case(word))
    };
    if says("OTEL_SDK_DISABLED", "true") {
        return Ok(None);
    }
    if let Some(flag) = flag {
        return Ok(Some(below(url(FLAG, flag)?)));
    }
    if says("OTEL_TRACES_EXPORTER", "none") {
        return Ok(None);
    }
    let url = match (variable(WHOLE), variable(BASE)) {
        (Some(whole), _) => url(WHOLE, &whole)?,
        (None, Some(base)) => below(url(BASE, &base)?),
        (None, None) => return Ok(None),
    };
    for name in PROTOCOLS {
        if let Some(value) = variable(name) {
            if value != "http/protobuf" {
                return Err(TraceError::Variable {
                    name,
                    value,
                    wanted: "rgby sends traces as http/protobuf, by default to port 4318 of a \
                             collector: set both variables so, or OTEL_TRACES_EXPORTER=none",
                });
            }
            break;
        }
    }
    Ok(Some(url))
}

fn url(name: &'static str, text: &str) -> Result<Url, TraceError> {
    let wrong = |reason: String| TraceError::Url { name, reason };
    let url = Url::parse(text).map_err(|error| wrong(format!("`{text}` is no URL: {error}")))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(wrong(format!("`{text}` is not http or https")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not shown: it would be in the log.
        let reason = "it holds a name or password; OTEL_EXPORTER_OTLP_HEADERS is for those";
        return Err(wrong(reason.into()));
    }
    Ok(url)
}

/// Where a collector takes traces, whether its URL says so or not.
fn below(mut base: Url) -> Url {
    let path = base.path().trim_end_matches('/').to_owned();
    if !path.ends_with("/v1/traces") {
        base.set_path(&format!("{path}/v1/traces"));
    }
    base
}

/// The library would take another one without a word.
fn check_sampler(variable: impl Fn(&str) -> Option<String>) -> Result<(), TraceError> {
    let Some(value) = variable(SAMPLER) else {
        return Ok(());
    };
    let kind = value.strip_prefix("parentbased_").unwrap_or(&value);
    match kind {
        "always_on" | "always_off" => Ok(()),
        "traceidratio" => {
            let share = variable(SAMPLER_ARG).unwrap_or_default();
            if share
                .parse()
                .is_ok_and(|share: f64| (0.0..=1.0).contains(&share))
            {
                return Ok(());
            }
            Err(TraceError::Variable {
                name: SAMPLER_ARG,
                value: share,
                wanted: "it must be the share of traces to be recorded, 0 to 1",
            })
        }
        _ => Err(TraceError::Variable {
            name: SAMPLER,
            value,
            wanted: "it may be always_on, always_off or traceidratio, or one of them behind \
                     parentbased_",
        }),
    }
}

/// What the server is called, unless the variables call it something else.
fn resource() -> Resource {
    let found = Resource::builder().build();
    let named = |key: &'static str| {
        let value = found.get_ref(&Key::new(key));
        value.is_some_and(|value| !value.as_str().starts_with("unknown_service"))
    };
    let ours = [
        ("service.name", "rgby"),
        ("service.version", env!("CARGO_PKG_VERSION")),
    ];
    let missing = ours.into_iter().filter(|(key, _)| !named(key));
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
    fn the_flag_comes_before_the_variables() {
        let flag = Some("http://a:4318");
        let a = Some("http://a:4318/v1/traces".to_owned());
        assert_eq!(found(None, &[]), None);
        assert_eq!(found(flag, &[(BASE, "http://b:4318")]), a);
        for same in ["http://a:4318/", "http://a:4318/v1/traces"] {
            assert_eq!(found(Some(same), &[]), a);
        }
        assert_eq!(
            found(None, &[(BASE, "https://b/collect/")]).unwrap(),
            "https://b/collect/v1/traces"
        );
        assert_eq!(
            found(None, &[(BASE, "http://b"), (WHOLE, "http://c/here")]).unwrap(),
            "http://c/here"
        );
    }

    #[test]
    fn traces_can_be_switched_off() {
        let flag = Some("http://a");
        assert_eq!(found(flag, &[("OTEL_SDK_DISABLED", "true")]), None);
        let none = &[(BASE, "http://b"), ("OTEL_TRACES_EXPORTER", "none")];
        assert_eq!(found(None, none), None);
        assert!(found(flag, none).is_some());
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for bad in ["", "localhost:4318", "ftp://a", "unix:/a", "http://"] {
            let error = endpoint(Some(bad), variables(&[])).unwrap_err().to_string();
            assert!(error.starts_with("--otlp-endpoint: "), "{error}");
        }
        let error = endpoint(Some("http://me:secret@a"), variables(&[])).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("OTEL_EXPORTER_OTLP_HEADERS") && !error.contains("secret"));
        let grpc = variables(&[(BASE, "http://b:4317"), (PROTOCOLS[1], "grpc")]);
        let error = endpoint(None, grpc).unwrap_err().to_string();
        assert!(error.starts_with("OTEL_EXPORTER_OTLP_PROTOCOL: is `grpc`"));
        assert!(endpoint(Some("http://a"), grpc).is_ok());
    }

    #[test]
    fn samplers_that_are_not_known_are_refused() {
        let check = |set| check_sampler(variables(set)).map_err(|error| error.to_string());
        assert_eq!(check(&[]), Ok(()));
        assert_eq!(check(&[(SAMPLER, "always_off")]), Ok(()));
        let tenth = &[(SAMPLER, "parentbased_traceidratio"), (SAMPLER_ARG, "0.1")];
        assert_eq!(check(tenth), Ok(()));
        let error = check(&[(SAMPLER, "jaeger_remote")]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER: is `jaeger_remote`"));
        let error = check(&[(SAMPLER, "traceidratio"), (SAMPLER_ARG, "10%")]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER_ARG: is `10%`"));
    }
}

//! Traces: the spans that a collector receives, and robustness against an unreachable collector.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use prost::Message;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::http_request::HttpRequest;
use super::serve_support::{Server, planes};
use super::serve_tls::certificate;
use super::support::{assert_refused, workplace};

const INFER: &str = "/v2/models/rgby/infer";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const KEY: &str = "the-key-of-the-laboratory";

/// `ExportTraceServiceRequest` of OTLP 1, reduced to the fields that the tests check.
#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
}

/// Returns the value of an attribute as text.
fn attribute(attributes: &[Attribute], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    let value = found.value.clone()?;
    value.text.or(value.number.map(|number| number.to_string()))
}

impl Span {
    fn get(&self, key: &str) -> String {
        attribute(&self.attributes, key).unwrap_or_else(|| panic!("no {key}: {self:?}"))
    }

    fn status(&self) -> i32 {
        self.status.as_ref().map_or(0, |status| status.code)
    }
}

/// A mock collector that stores the bodies of its requests.
struct MockCollector {
    addr: SocketAddr,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl MockCollector {
    /// Starts the collector. `wrap` adds a layer, for example TLS, to each connection.
    fn start<S: Read + Write>(wrap: impl Fn(TcpStream) -> S + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let bodies: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let kept = bodies.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = wrap(stream.unwrap());
                let request = HttpRequest::read(&mut BufReader::new(&mut stream)).unwrap();
                let line = [&request.method, &request.target, &request.version];
                assert_eq!(line, ["POST", "/v1/traces", "HTTP/1.1"]);
                assert_eq!(request.headers["content-type"], "application/x-protobuf");
                kept.lock().unwrap().push(request.body);
                let response = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(response).unwrap();
                stream.flush().unwrap();
            }
        });
        Self { addr, bodies }
    }

    fn resources(&self) -> Vec<ResourceSpans> {
        let bodies = self.bodies.lock().unwrap();
        let exports = bodies.iter().map(|body| Export::decode(&body[..]).unwrap());
        exports.flat_map(|export| export.resources).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.resources().into_iter();
        let scopes = resources.flat_map(|resource| resource.scopes);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    fn received(&self, text: &str) -> bool {
        let bodies = self.bodies.lock().unwrap();
        let mut bodies = bodies.iter();
        bodies.any(|body| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

/// Sends an inference request with the client's trace context; returns the status.
fn infer(server: &Server, flags: &str, more: &[(&str, &str)]) -> u16 {
    let parent = format!("00-{TRACE}-{PARENT}-{flags}");
    let headers = [
        &[("traceparent", &*parent), ("x-request-id", "plate-7")],
        more,
    ]
    .concat();
    let body = planes(&[[255; 4]]).to_string();
    let response = server.request("POST", INFER, &headers, body.as_bytes());
    response.status
}

#[test]
fn request_and_stage_spans_continue_the_clients_trace() {
    let dir = workplace();
    fs::write(dir.path().join("keys"), KEY).unwrap();
    let collector = MockCollector::start(|stream| stream);
    let mut server = Server::start(
        dir.path(),
        &format!(
            "--otlp-endpoint http://{} --api-key-file keys",
            collector.addr
        ),
    );
    let authorized = format!("Bearer {KEY}");
    let authorized = ("authorization", &*authorized);
    assert_eq!(infer(&server, "01", &[authorized]), 200);
    // Shutdown exports the spans without waiting for the next scheduled batch.
    server.signal("TERM");
    assert_eq!(server.wait(), Some(143));

    let resources = collector.resources();
    let about = &resources[0].resource.as_ref().unwrap().attributes;
    assert_eq!(attribute(about, "service.name").unwrap(), "rgby");
    let spans = collector.spans();
    assert!(
        spans
            .iter()
            .all(|span| hex::encode(&span.trace_id) == TRACE)
    );
    let request = spans
        .iter()
        .find(|span| hex::encode(&span.parent) == PARENT);
    let request = request.unwrap_or_else(|| panic!("{spans:?}"));
    assert_eq!(request.name, "POST /v2/models/{model}/infer");
    assert_eq!((request.kind, request.status()), (2, 0));
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v2/models/{model}/infer"),
        ("url.path", INFER),
        ("http.response.status_code", "200"),
        ("rgby.request_id", "plate-7"),
        ("rgby.model", "rgby"),
        ("rgby.model_version", "1"),
    ] {
        assert_eq!(request.get(key), value, "{key}");
    }
    let mut stages: Vec<&Span> = spans
        .iter()
        .filter(|span| span.parent == request.id)
        .collect();
    stages.sort_by_key(|span| span.start);
    let names: Vec<&str> = stages.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["read", "prepare", "queue", "infer"]);
    assert_eq!(spans.len(), 5);
    assert_eq!(stages[3].get("rgby.batch_images"), "1");
    // Stages are sequential and within the request, apart from small differences of the clocks.
    let slack = 1_000_000;
    let mut now = request.start;
    for stage in stages {
        assert!(
            stage.start + slack >= now && stage.end >= stage.start,
            "{spans:?}"
        );
        now = stage.end;
    }
    assert!(now <= request.end + slack, "{spans:?}");
    assert!(
        server.log().contains(&format!("trace_id=\"{TRACE}\"")),
        "{}",
        server.log()
    );
}

#[test]
fn spans_have_the_cause_of_errors_and_never_a_key() {
    let dir = workplace();
    fs::write(dir.path().join("keys"), KEY).unwrap();
    let collector = MockCollector::start(|stream| stream);
    let url = format!("http://{}", collector.addr);
    // The endpoint comes from the environment variable.
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
        ("RUST_LOG", "debug"),
    ];
    let args = "--model model.onnx --api-key-file keys";
    let mut server = Server::start_in(dir.path(), args, &variables);
    let key = ("x-api-key", KEY);
    assert_eq!(infer(&server, "01", &[key, ("timeout", "0")]), 504);
    let wrong = format!("{KEY}-but-wrong");
    assert_eq!(infer(&server, "01", &[("x-api-key", &wrong)]), 401);
    // Neither requests that the client does not sample nor probes are recorded.
    assert_eq!(infer(&server, "00", &[key]), 200);
    server.assert_healthy();
    let bearer = format!("Bearer {KEY}");
    let headers = [("authorization", &*bearer), ("traceparent", "nonsense")];
    let response = server.request("GET", &format!("/nothing?key={KEY}"), &headers, b"");
    assert_eq!(response.status, 404);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(143));

    let spans = collector.spans();
    let with_status = |status: &str| {
        let has = |span: &&Span| {
            attribute(&span.attributes, "http.response.status_code").as_deref() == Some(status)
        };
        spans
            .iter()
            .find(has)
            .unwrap_or_else(|| panic!("no {status}: {spans:?}"))
    };
    let late = with_status("504");
    assert_eq!(
        (late.get("error.type").as_str(), late.status()),
        ("deadline", 2)
    );
    // An error of the client does not set the span's error status.
    let refused = with_status("401");
    assert_eq!(
        (refused.get("error.type").as_str(), refused.status()),
        ("unauthorized", 0)
    );
    let unknown = with_status("404");
    assert_eq!(unknown.name, "GET none");
    assert_eq!(unknown.get("url.path"), "/nothing");
    assert!(unknown.parent.is_empty() && hex::encode(&unknown.trace_id) != TRACE);
    let requests = spans.iter().filter(|span| span.kind == 2).count();
    assert_eq!(requests, 3, "{spans:?}");
    assert!(!collector.received(KEY));
    assert!(!server.log().contains(KEY));
}

#[test]
fn an_unreachable_collector_causes_one_warning() {
    let dir = workplace();
    // One address refuses connections; the other accepts them but never responds.
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for (addr, warned) in [(closed, true), (silent.local_addr().unwrap(), false)] {
        let args = format!("--model model.onnx --otlp-endpoint http://{addr}");
        let often = [("OTEL_BSP_SCHEDULE_DELAY", "20")];
        let mut server = Server::start_in(dir.path(), &args, &often);
        for _ in 0..3 {
            assert_eq!(infer(&server, "01", &[]), 200);
            thread::sleep(Duration::from_millis(100));
        }
        if warned {
            server.wait_for_log("the collector does not accept traces");
        }
        server.assert_healthy();
        let start = Instant::now();
        server.signal("TERM");
        assert_eq!(server.wait(), Some(143));
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{:?}",
            start.elapsed()
        );
        let log = server.log();
        assert_eq!(log.matches("WARN").count(), 1, "{log}");
    }
}

#[test]
fn traces_can_be_sent_over_tls() {
    let dir = workplace();
    let path = dir.path();
    if !certificate(path, "cert.pem", "key.pem") {
        return;
    }
    let config = tls(path);
    let collector = MockCollector::start(move |stream| {
        StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), stream)
    });
    let args = format!(
        "--model model.onnx --otlp-endpoint https://{}",
        collector.addr
    );
    // Overrides the system's CA certificates.
    let variables = [("SSL_CERT_FILE", "cert.pem")];
    let mut server = Server::start_in(path, &args, &variables);
    assert_eq!(infer(&server, "01", &[]), 200);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(143));
    assert_eq!(collector.spans().len(), 5, "{}", server.log());
}

fn tls(path: &Path) -> Arc<ServerConfig> {
    let cert = CertificateDer::from_pem_file(path.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(path.join("key.pem")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder
        .with_no_client_auth()
        .with_single_cert(vec![cert], key);
    Arc::new(config.unwrap())
}

#[test]
fn unusable_collector_urls_are_refused() {
    let dir = workplace();
    let serve = "serve --model model.onnx --addr 127.0.0.1:0 --otlp-endpoint";
    for (url, expected) in [
        ("127.0.0.1:4318", "--otlp-endpoint: "),
        ("grpc://127.0.0.1:4317", "is not an http or https URL"),
        ("http://me:secret@127.0.0.1", "OTEL_EXPORTER_OTLP_HEADERS"),
    ] {
        assert_refused(dir.path(), &[(&format!("{serve} {url}"), &[expected])]);
    }
}

//! Third-party clients.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::serve_support::{PATIENCE, Server, slow_model};
use super::support::{skipped, tiny_model_with_embeddings, workplace, write_model};

/// Name and labels of the metric that counts gRPC inference requests, up to the status.
const INFERRED: &str = r#"rgby_requests_total{method="gRPC",route="/inference.GRPCInferenceService/ModelInfer",status="#;

/// Returns whether Triton's client for a protocol is installed; otherwise marks the test as skipped.
fn has_client(protocol: &str) -> bool {
    let import = format!("import tritonclient.http, tritonclient.{protocol}");
    let found = Command::new("python3").args(["-c", &import]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        skipped("Triton's client is not installed: `pip install tritonclient[http,grpc]`");
    }
    found
}

fn script(name: &str, args: &[&str]) -> Child {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut command = Command::new("python3");
    command.arg(path.join(name)).args(args);
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    piped.stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a script and asserts that all of its checks passed.
fn assert_ok(script: Child, checks: usize, server: &Server) {
    let output = script.wait_with_output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}{}", server.log());
    assert_eq!(stdout.matches(": ok").count(), checks, "{stdout}");
}

/// Starts a server with gRPC; returns it with its gRPC address.
fn grpc_server(dir: &Path, args: &str) -> (Server, String) {
    let server = Server::start(dir, &format!("--grpc-addr 127.0.0.1:0 {args}"));
    let addr = server.grpc.unwrap().to_string();
    (server, addr)
}

/// Starts a server with gRPC and a slow model.
fn slow_grpc_server(dir: &Path, args: &str) -> (Server, String) {
    write_model(&dir.join("model.onnx"), &slow_model(48));
    let args = format!("--intra-threads 1 --sessions 1 --max-batch 1 {args}");
    grpc_server(dir, &args)
}

#[test]
fn tritons_http_client_works() {
    if !has_client("http") {
        return;
    }
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let script = script("triton_http.py", &[&server.addr.to_string()]);
    assert_ok(script, 4, &server);
    server.assert_healthy();
}

#[test]
fn tritons_grpc_client_gets_the_same_results_as_over_http() {
    if !has_client("grpc") {
        return;
    }
    let dir = workplace();
    write_model(
        &dir.path().join("model.onnx"),
        &tiny_model_with_embeddings(),
    );
    let (server, addr) = grpc_server(dir.path(), "--max-queue 64 --max-body 1");
    let script = script("triton_grpc.py", &["all", &addr, &server.addr.to_string()]);
    assert_ok(script, 6, &server);
    for (status, least) in [(0, 20.0), (3, 20.0), (4, 1.0), (5, 2.0), (8, 1.0)] {
        let metric = format!("{INFERRED}\"{status}\"}}");
        assert!(server.metric(&metric) >= least, "{metric}");
    }
    let log = server.log();
    assert!(
        log.contains("from-the-proxy") && log.contains("ModelInfer"),
        "{log}"
    );
    assert!(!log.contains("ServerReady"), "probes are not logged: {log}");
    server.assert_healthy();
}

#[test]
fn grpc_calls_need_a_key_if_keys_are_configured() {
    if !has_client("grpc") {
        return;
    }
    let dir = workplace();
    fs::write(dir.path().join("keys"), "0123456789abcdef\n").unwrap();
    let (server, addr) = grpc_server(dir.path(), "--api-key-file keys");
    assert_ok(script("triton_grpc.py", &["keys", &addr]), 1, &server);
    assert!(
        !server.log().contains("0123456789abcdef"),
        "{}",
        server.log()
    );
}

#[test]
fn grpc_clients_get_deadline_and_overload_errors() {
    if !has_client("grpc") {
        return;
    }
    let dir = workplace();
    let (server, addr) = slow_grpc_server(dir.path(), "--max-queue 1");
    assert_ok(script("triton_grpc.py", &["slow", &addr]), 2, &server);
    server.assert_healthy();
}

#[test]
fn a_grpc_call_in_progress_finishes_during_shutdown() {
    if !has_client("grpc") {
        return;
    }
    let dir = workplace();
    let (mut server, addr) = slow_grpc_server(dir.path(), "");
    let mut script = script("triton_grpc.py", &["drain", &addr]);
    let mut line = String::new();
    let mut stdout = BufReader::new(script.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "sent\n");
    server.wait_for(
        r#"rgby_stage_duration_seconds_count{model="rgby",stage="queue"}"#,
        |count| count > 0.5,
    );
    server.signal("TERM");
    let start = Instant::now();
    while server.get("/v2/health/ready").status == 200 {
        assert!(start.elapsed() < PATIENCE, "{}", server.log());
    }
    script
        .stdin
        .take()
        .unwrap()
        .write_all(b"stopped\n")
        .unwrap();
    stdout.read_line(&mut line).unwrap();
    let output = script.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(line.ends_with(": ok\n"), "{line}{stderr}{}", server.log());
    assert_eq!(server.wait(), Some(143));
}

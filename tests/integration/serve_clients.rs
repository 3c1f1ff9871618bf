//! Clients that others wrote.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::serve_support::{PATIENCE, Server, slow_model};
use super::support::{skipped, tiny_model_with_embeddings, workplace, write_model};

/// Takes the gRPC requests of a kind from a metric's name to its status.
const INFERRED: &str = r#"rgby_requests_total{method="gRPC",route="/inference.GRPCInferenceService/ModelInfer",status="#;

/// Whether Triton's client for a protocol is there; else says that the test is skipped.
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

/// Waits for a script, of which all checks must have been ok.
fn assert_ok(script: Child, checks: usize, server: &Server) {
    let output = script.wait_with_output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}{}", server.log());
    assert_eq!(stdout.matches(": ok").count(), checks, "{stdout}");
}

/// A server that also listens for gRPC, and its address for that.
fn grpc_server(dir: &Path, args: &str) -> (Server, String) {
    let server = Server::start(dir, &format!("--grpc-addr 127.0.0.1:0 {args}"));
    let addr = server.grpc.unwrap().to_string();
    (server, addr)
}

/// One whose model takes its time.
fn slow_grpc_server(dir: &Path, args: &str) -> (Server, String) {
    write_model(&dir.join("model.onnx"), &slow_model(48));
    let args = format!("--intra-threads 1 --sessions 1 --max-batch 1 {args}");
    grpc_server(dir, &args)
}

#[test]
fn tritons_http_client_is_at_home() {
    if !has_client("http") {
        return;
    }
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let script = script("triton_http.py", &[&server.addr.to_string()]);
    assert_ok(script, 4, &server);
    server.assert_well();
}

#[test]
fn tritons_grpc_client_is_at_home_and_told_the_same_as_over_http() {
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
    server.assert_well();
}

#[test]
fn a_grpc_call_needs_a_key_where_keys_are_wanted() {
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
fn a_grpc_client_is_told_that_it_is_late_or_the_queue_full() {
    if !has_client("grpc") {
        return;
    }
    let dir = workplace();
    let (server, addr) = slow_grpc_server(dir.path(), "--max-queue 1");
    assert_ok(script("triton_grpc.py", &["slow", &addr]), 2, &server);
    server.assert_well();
}

#[test]
fn a_grpc_call_under_way_is_answered_when_the_server_is_stopped() {
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

//! Slow, endless and malicious connections. Each is closed, and the server stays healthy.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::serve_support::{Server, address, frame, receive, send};
use super::support::{rgby, signal, workplace};

const INFER: &str = "/v2/models/rgby/infer";

#[test]
fn bodies_that_are_too_large_or_too_slow_are_refused() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--max-body 1 --read-timeout 1s");
    let mut stream = server.connect();
    let head =
        format!("POST {INFER} HTTP/1.1\r\nhost: test\r\ncontent-length: 99999999999\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    assert_eq!(receive(&mut stream).unwrap().status, 413);

    // An endless chunked body.
    let mut stream = server.connect();
    let head = format!("POST {INFER} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n", &vec![b' '; 0x10000][..], b"\r\n"].concat();
    let mut chunks = 0..20_000;
    let ended = chunks.find(|_| stream.write_all(&chunk).is_err());
    assert!(ended.is_some_and(|sent| sent > 14), "{ended:?}");

    // A body that never arrives, and one that arrives byte by byte.
    for pause in [Duration::from_mins(1), Duration::from_millis(100)] {
        let mut stream = server.connect();
        let start = Instant::now();
        let head = format!("POST {INFER} HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        while start.elapsed() + pause < Duration::from_millis(900) {
            stream.write_all(b" ").unwrap();
            std::thread::sleep(pause);
        }
        assert_eq!(receive(&mut stream).unwrap().status, 408);
    }
    server.assert_healthy();
}

#[test]
fn slow_and_endless_headers_are_refused() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--read-timeout 1s");
    let beginnings: [&[u8]; 4] = [
        b"",
        b"GET /v2 HTTP/1.1\r\nhost: te",
        b"PRI * HT",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut streams = beginnings.map(|bytes| {
        let mut stream = server.connect();
        stream.write_all(bytes).unwrap();
        stream
    });
    let start = Instant::now();
    server.assert_healthy();
    for (stream, beginning) in streams.iter_mut().zip(beginnings) {
        let mut response = Vec::new();
        // The connection ends with a response, an end of file or a reset.
        let _ = stream.read_to_end(&mut response);
        assert!(start.elapsed() < Duration::from_mins(1), "{beginning:?}");
    }
    let many: Vec<_> = (0..10_000)
        .map(|i| (format!("x-{i}"), "y".to_owned()))
        .collect();
    let many: Vec<_> = many
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let mut stream = server.connect();
    // The server may close the connection while the client is sending.
    let sent = send(&mut stream, "GET", "/v2", &many, b"");
    if let Ok(response) = sent.and_then(|()| receive(&mut stream)) {
        assert_eq!(response.status, 431);
    }
    let long = format!("/{}", "x".repeat(100_000));
    let mut stream = server.connect();
    let sent = send(&mut stream, "GET", &long, &[], b"");
    if let Ok(response) = sent.and_then(|()| receive(&mut stream)) {
        assert!([414, 431].contains(&response.status), "{response:?}");
    }
    server.assert_healthy();
}

/// Opens and immediately resets many streams on one HTTP/2 connection (CVE-2023-44487).
#[test]
fn rapid_stream_resets_end_the_connection() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--grpc-addr 127.0.0.1:0");
    for addr in [server.addr, server.grpc.unwrap()] {
        let mut stream = Server::connect_to(addr);
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        stream.write_all(&frame(4, 0, 0, b"")).unwrap();
        // GET / over http without authority: entries 2, 4 and 6 of HPACK's static table.
        let headers = [0x82, 0x84, 0x86];
        let mut sent = 0;
        for id in (1..).step_by(2).take(20_000) {
            let reset = frame(3, 0, id, &8_u32.to_be_bytes());
            let both = [frame(1, 5, id, &headers), reset].concat();
            if stream.write_all(&both).is_err() {
                break;
            }
            sent += 1;
        }
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        // The server closes the connection before the end, with or without GOAWAY (frame 7).
        assert!(
            sent < 20_000 || response.windows(2).any(|pair| pair[0] == 7),
            "all {sent} were accepted"
        );
    }
    server.assert_healthy();
}

/// Includes the requests that a web page can make a browser send to this machine.
#[test]
fn the_grpc_port_refuses_other_requests_and_closes_idle_connections() {
    let dir = workplace();
    let args = "--grpc-addr 127.0.0.1:0 --read-timeout 1s";
    let server = Server::start(dir.path(), args);
    let addr = server.grpc.unwrap();
    let unload = "/inference.GRPCInferenceService/RepositoryModelUnload";
    let message = b"\0\0\0\0\x06\x12\x04rgby";
    let cases: [(&[(&str, &str)], u16); 3] = [
        (&[("content-type", "text/plain")], 415),
        (&[("content-type", "application/grpc")], 415),
        // An error of a gRPC call has HTTP status 200.
        (&[("origin", "http://evil.example")], 200),
    ];
    for (headers, status) in cases {
        let mut stream = Server::connect_to(addr);
        send(&mut stream, "POST", unload, headers, message).unwrap();
        let response = receive(&mut stream).unwrap();
        assert_eq!(response.status, status, "{headers:?}: {response:?}");
        let code = if status == 200 { "7" } else { "3" };
        assert_eq!(response.header("grpc-status"), Some(code), "{response:?}");
    }
    assert_eq!(server.get("/v2/models/rgby/ready").status, 200);
    let start = Instant::now();
    let mut silent = Server::connect_to(addr);
    let _ = silent.read_to_end(&mut Vec::new());
    assert!(start.elapsed() < Duration::from_mins(1));
    server.assert_healthy();
}

#[test]
#[cfg(unix)]
fn the_server_works_after_stderr_is_closed() {
    let dir = workplace();
    let mut server = rgby()
        .args(["serve", "--model", "model.onnx", "--addr", "127.0.0.1:0"])
        .current_dir(dir.path())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let addr = log.find_map(|line| address(&line.unwrap(), "http"));
    drop(log);
    let addr = addr.expect("the server prints its address");
    for _ in 0..3 {
        let mut stream = Server::connect_to(addr);
        send(&mut stream, "GET", "/v2", &[], b"").unwrap();
        assert_eq!(receive(&mut stream).unwrap().status, 200);
    }
    signal(&server, "TERM");
    assert_eq!(server.wait().unwrap().code(), Some(143));
}

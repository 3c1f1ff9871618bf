//! Concurrent requests: batching, a full queue, deadlines, disconnected clients, shutdown.

use std::io::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::serve_support::{HttpResponse, Server, planes, receive, send, slow_model, slow_request};
use super::support::{probability, workplace, write_model};

const INFER: &str = "/v2/models/rgby/infer";
const BATCHES: &str = r#"rgby_batch_images_count{model="rgby"}"#;
const IMAGES: &str = r#"rgby_batch_images_sum{model="rgby"}"#;
const QUEUED: &str = r#"rgby_queue_images{model="rgby"}"#;

/// Starts a server with a slow model.
fn slow_server(dir: &Path, args: &str) -> Server {
    write_model(&dir.join("model.onnx"), &slow_model(24));
    Server::start(dir, &format!("--intra-threads 1 --sessions 1 {args}"))
}

fn infer(server: &Server, headers: &[(&str, &str)]) -> HttpResponse {
    server.request(
        "POST",
        INFER,
        headers,
        slow_request().to_string().as_bytes(),
    )
}

#[test]
fn outputs_do_not_depend_on_the_batch() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--max-batch 8 --max-delay 50ms --sessions 2");
    let grays = |thread: usize, round: usize| -> Vec<[u8; 4]> {
        let image =
            |i: usize| [0, 1, 2, 3].map(|c| (thread * 31 + round * 7 + i * 3 + c * 60) as u8);
        (0..=(thread + round) % 11).map(image).collect()
    };
    thread::scope(|scope| {
        for thread in 0..12 {
            let server = &server;
            scope.spawn(move || {
                for round in 0..6 {
                    let images = grays(thread, round);
                    let values = server.post(INFER, &planes(&images)).values();
                    assert_eq!(values.len(), images.len() * 28);
                    for (row, image) in values.chunks(28).zip(&images) {
                        for (class, value) in row.iter().enumerate() {
                            let expected = probability(image[class % 4]);
                            assert!((value - expected).abs() < 1e-5, "{thread} {round} {class}");
                        }
                    }
                }
            });
        }
    });
    let images: usize = (0..12)
        .flat_map(|t| (0..6).map(move |r| (t + r) % 11 + 1))
        .sum();
    assert!((server.metric(IMAGES) - images as f64).abs() < 0.5);
    // The number of batches if no two requests shared one; more than eight images are split.
    let unshared: usize = (0..12_usize)
        .flat_map(|t| (0..6).map(move |r| ((t + r) % 11 + 1).div_ceil(8)))
        .sum();
    let batches = server.metric(BATCHES);
    assert!(batches < unshared as f64, "{batches} of {unshared}");
    assert!(server.metric(QUEUED).abs() < 0.5);
}

#[test]
fn an_image_that_fails_does_not_affect_others_in_its_batch() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--max-batch 16 --max-delay 100ms");
    // All values are finite, but their mean is NaN.
    let values: Vec<f32> = (0..256)
        .map(|i| if i % 64 < 32 { f32::MAX } else { f32::MIN })
        .collect();
    let bad = json!({"inputs": [{
        "name": "image", "datatype": "FP32", "shape": [1, 4, 8, 8], "data": values,
    }]});
    thread::scope(|scope| {
        for number in 0..12 {
            let (server, bad) = (&server, &bad);
            scope.spawn(move || {
                for _ in 0..5 {
                    if number % 4 == 0 {
                        let response = server.post(INFER, bad);
                        assert!([200, 500].contains(&response.status), "{response:?}");
                    } else {
                        let value = server.post(INFER, &planes(&[[number; 4]])).values()[0];
                        assert!((value - probability(number)).abs() < 1e-5);
                    }
                }
            });
        }
    });
    server.assert_healthy();
}

#[test]
fn a_full_queue_is_reported_immediately() {
    let dir = workplace();
    let server = slow_server(dir.path(), "--max-batch 2 --max-queue 3");
    let responses: Vec<HttpResponse> = thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| infer(&server, &[])))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let with = |status: u16| responses.iter().filter(|a| a.status == status).count();
    assert_eq!(with(200) + with(429), 16, "{responses:?}");
    assert!(
        with(200) >= 3 && with(429) >= 1,
        "{} and {}",
        with(200),
        with(429)
    );
    for refused in responses.iter().filter(|a| a.status == 429) {
        let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&after) && refused.error().contains("full"));
    }
    // A client that sends the body after the headers gets the error, and can reuse the connection.
    let mut stream = server.connect();
    let body = vec![b' '; 300_000];
    for _ in 0..2 {
        let head = format!(
            "POST /v2/models/other/infer HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        thread::sleep(Duration::from_millis(50));
        stream.write_all(&body).unwrap();
        assert_eq!(receive(&mut stream).unwrap().status, 404);
    }
    // A request larger than a batch is split.
    let server = slow_server(dir.path(), "--max-batch 2 --max-queue 6");
    let response = server.post(INFER, &planes(&[[0; 4]; 5]));
    assert_eq!(response.values(), [0.5; 5 * 28]);
    assert!((server.metric(BATCHES) - 3.0).abs() < 0.5);
}

#[test]
fn late_and_disconnected_requests_are_not_computed() {
    let dir = workplace();
    let server = slow_server(dir.path(), "--max-batch 1 --timeout 60s");
    thread::scope(|scope| {
        let first = scope.spawn(|| server.post(INFER, &planes(&[[0; 4]; 6])));
        server.wait_for(QUEUED, |images| images > 0.0 && images < 6.0);
        let late = infer(&server, &[("timeout", "0.001")]);
        assert_eq!(late.status, 504, "{}", late.text());
        let mut request = slow_request();
        request["parameters"] = json!({"timeout": 1000});
        assert_eq!(server.post(INFER, &request).status, 504);
        // A client that disconnects.
        let mut stream = server.connect();
        let body = slow_request().to_string();
        send(&mut stream, "POST", INFER, &[], body.as_bytes()).unwrap();
        server.wait_for("rgby_requests_open", |open| open > 2.5);
        drop(stream);
        server.wait_for(r#"rgby_errors_total{cause="client_left"}"#, |left| {
            left > 0.5
        });
        assert_eq!(first.join().unwrap().values().len(), 6 * 28);
    });
    server.wait_for(QUEUED, |images| images < 0.5);
    assert!(
        (server.metric(IMAGES) - 6.0).abs() < 0.5,
        "{}",
        server.metric(IMAGES)
    );
    assert_eq!(infer(&server, &[("timeout", "soon")]).status, 400);
    assert_eq!(infer(&server, &[("timeout", "50s")]).status, 200);

    let server = slow_server(dir.path(), "--max-batch 1 --timeout 1ms");
    let response = server.post(INFER, &planes(&[[0; 4]; 4]));
    assert_eq!(response.status, 504, "{}", response.text());
}

#[test]
fn accepted_requests_finish_during_shutdown() {
    let dir = workplace();
    let mut server = slow_server(dir.path(), "--max-batch 4");
    let counts: Vec<(usize, usize)> = thread::scope(|scope| {
        let client = || {
            let mut stream = server.connect();
            let body = slow_request().to_string();
            let (mut finished, mut refused) = (0, 0);
            loop {
                send(&mut stream, "POST", INFER, &[], body.as_bytes()).unwrap();
                let response = receive(&mut stream).unwrap();
                match response.status {
                    200 => finished += 1,
                    503 => refused += 1,
                    _ => panic!("{response:?}"),
                }
                if response.header("connection") == Some("close") {
                    return (finished, refused);
                }
            }
        };
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
        server.wait_for(IMAGES, |images| images > 10.0);
        server.signal("TERM");
        let joined = clients.into_iter().map(|client| client.join().unwrap());
        joined.collect()
    });
    assert_eq!(server.wait(), Some(143), "{}", server.log());
    assert!(
        counts.iter().map(|(finished, _)| finished).sum::<usize>() >= 10,
        "{counts:?}"
    );
    assert!(!server.log().contains("cut off"));
}

#[test]
fn shutdown_is_unready_immediately_and_limited_by_the_drain_time() {
    let dir = workplace();
    let mut server = slow_server(dir.path(), "--max-batch 1 --drain 300ms");
    let mut stream = server.connect();
    let body = planes(&[[0; 4]; 60]).to_string();
    send(&mut stream, "POST", INFER, &[], body.as_bytes()).unwrap();
    server.wait_for(QUEUED, |images| images > 20.0);
    let mut probe = server.connect();
    server.signal("TERM");
    thread::sleep(Duration::from_millis(100));
    send(&mut probe, "GET", "/v2/health/ready", &[], b"").unwrap();
    let unready = receive(&mut probe).unwrap();
    assert_eq!(unready.status, 503);
    assert_eq!(unready.header("connection"), Some("close"));
    assert_eq!(server.wait(), Some(1), "{}", server.log());
    assert!(server.log().contains("cut off"), "{}", server.log());

    // Without requests, the server exits immediately.
    let mut idle = slow_server(dir.path(), "");
    idle.signal("INT");
    assert_eq!(idle.wait(), Some(130), "{}", idle.log());
}

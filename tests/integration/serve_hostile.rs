//! Malformed and malicious requests. Each gets an error, and the server stays healthy.

use std::fs;

use rgby::imaging::CHANNELS;
use serde_json::{Value, json};

use super::serve_support::{Server, form, planes};
use super::support::{SIDE, workplace, workplace_with_samples};

const INFER: &str = "/v2/models/rgby/infer";

/// Returns an inference request of one image, changed by `change`.
fn tensor(change: impl Fn(&mut Value)) -> Value {
    let values = vec![0.0; 4 * (SIDE * SIDE) as usize];
    let mut request = json!({"inputs": [{
        "name": "image", "datatype": "FP32", "shape": [1, 4, SIDE, SIDE], "data": values,
    }]});
    change(&mut request);
    request
}

#[allow(clippy::needless_pass_by_value, reason = "literals are given")]
fn input(key: &str, value: Value) -> Value {
    tensor(|request| request["inputs"][0][key] = value.clone())
}

/// Returns an inference request of raw planes.
#[allow(clippy::needless_pass_by_value, reason = "literals are given")]
fn raw(shape: Value, datatype: &str, data: Value) -> Value {
    json!({"inputs": [{"name": "planes", "datatype": datatype, "shape": shape, "data": data}]})
}

/// Asserts that each request is refused with an error that contains the text beside it.
fn assert_refused(server: &Server, cases: &[(Value, &str)]) {
    for (request, expected) in cases {
        assert_body_refused(server, &request.to_string(), expected);
    }
    server.assert_healthy();
}

fn assert_body_refused(server: &Server, body: &str, expected: &str) {
    let response = server.request("POST", INFER, &[], body.as_bytes());
    let body: String = body.chars().take(200).collect();
    assert_eq!(response.status, 400, "{body}: {}", response.text());
    let error = response.error();
    assert!(error.contains(expected), "{body}: no {expected} in {error}");
    assert!(error.len() < 500, "{error}");
}

#[test]
fn malformed_infer_requests_are_refused() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let deep = format!(r#"{{"inputs": [{}"#, "[".repeat(100_000));
    for body in ["", "{", "[]", "\u{0}\u{1}", "{\"inputs\": 5}", "{}", &deep] {
        assert_body_refused(&server, body, "not a valid infer request");
    }
    let deep_data = (0..20).fold(json!(1), |inner, _| json!([inner]));
    let twice = |r: &mut Value| r["inputs"] = json!([r["inputs"][0], r["inputs"][0]]);
    let outputs = |name: &str| tensor(|r| r["outputs"] = json!([{"name": name}]));
    let parameters = |parameters: Value| tensor(|r| r["parameters"] = parameters.clone());
    let cases = [
        (json!({"inputs": []}), "one input"),
        (tensor(twice), "one input"),
        (input("name", json!("pixels")), "unknown input"),
        (input("data", json!("many")), "not a valid infer request"),
        (
            input("data", json!(vec![Value::Null; 256])),
            "not a valid infer request",
        ),
        (input("data", json!(vec![1e300; 256])), "finite"),
        (input("data", deep_data), "nested too deeply"),
        (input("data", json!(null)), "neither"),
        (
            input("parameters", json!({"binary_data_size": 1024})),
            "both",
        ),
        (
            input("parameters", json!({"shared_memory_region": "x"})),
            "shared memory",
        ),
        (outputs("logits"), "probabilities"),
        (outputs("embeddings"), "unknown output"),
        (parameters(json!({"timeout": -5})), "timeout"),
        (
            parameters(json!({"binary_data_output": 1})),
            "true or false",
        ),
    ];
    assert_refused(&server, &cases);
}

#[test]
fn shapes_and_types_must_fit() {
    const HUGE: u64 = 1 << 40;
    let dir = workplace();
    let server = Server::start(dir.path(), "--max-queue 64");
    let shape = |shape: Value| input("shape", shape);
    let four = |values: [f64; 4]| json!(values);
    let cases = [
        (input("datatype", json!("FP64")), "FP32"),
        (input("datatype", json!("UINT8")), "FP32"),
        (shape(json!([])), "must be [n, 4, 8, 8]"),
        (shape(json!([4, SIDE, SIDE])), "must be [n, 4, 8, 8]"),
        (shape(json!([0, 4, SIDE, SIDE])), "n ≥ 1"),
        (shape(json!([1, 3, SIDE, SIDE])), "must be [n, 4, 8, 8]"),
        (shape(json!([2, 4, SIDE, SIDE])), "256 values"),
        (shape(json!([HUGE, 4, SIDE, SIDE])), "256 values"),
        (
            shape(json!([u64::MAX, 4, SIDE, SIDE])),
            "must be [n, 4, 8, 8]",
        ),
        (shape(json!(vec![HUGE; 5000])), "…"),
        (
            shape(json!([-1, 4, SIDE, SIDE])),
            "not a valid infer request",
        ),
        (
            shape(json!([1.5, 4, SIDE, SIDE])),
            "not a valid infer request",
        ),
        (
            raw(json!([4, 1, 1]), "UINT8", four([0.0, 0.0, 0.0, 256.0])),
            "from 0 to 255",
        ),
        (
            raw(json!([4, 1, 1]), "UINT8", four([0.0, 0.0, 0.0, 0.5])),
            "whole number",
        ),
        (
            raw(json!([4, 1, 1]), "UINT16", four([0.0, 0.0, 0.0, -1.0])),
            "whole number",
        ),
        (
            raw(json!([4, 1, 1]), "FP32", four([0.0; 4])),
            "UINT8 or UINT16",
        ),
        (
            raw(json!([3, 1, 1]), "UINT8", json!([0, 0, 0])),
            "red, green, blue",
        ),
        (
            raw(json!([4, HUGE, HUGE]), "UINT8", json!([0])),
            "from 1 to 16384",
        ),
        (
            raw(json!([HUGE, 4, 16384, 16384]), "UINT8", json!([0])),
            "planes",
        ),
        (planes(&[[0; 4]; 65]), "larger than the queue"),
    ];
    assert_refused(&server, &cases);
}

#[test]
fn binary_data_that_contradicts_the_json_is_refused() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let binary = |size: Value| {
        tensor(|request| {
            let tensor = request["inputs"][0].as_object_mut().unwrap();
            tensor.remove("data");
            tensor.insert("parameters".into(), json!({"binary_data_size": size}));
        })
        .to_string()
    };
    let whole = vec![0_u8; 1024];
    let nan = f32::NAN.to_le_bytes().repeat(256);
    let infinite = f32::NEG_INFINITY.to_le_bytes().repeat(256);
    let good = binary(json!(1024));
    let length = good.len().to_string();
    let too_long = (good.len() + 1025).to_string();
    let cases: [(&str, &str, &[u8], &str); 14] = [
        (&good, &length, &nan, "NaN"),
        (&good, &length, &infinite, "-inf"),
        (&good, &length, &whole[..1023], "binary_data_size"),
        (&good, &length, b"", "binary_data_size"),
        (&good, &too_long, &whole, "Inference-Header-Content-Length"),
        (&good, "-1", &whole, "Inference-Header-Content-Length"),
        (
            &good,
            "18446744073709551616",
            &whole,
            "Inference-Header-Content-Length",
        ),
        (&good, "many", &whole, "Inference-Header-Content-Length"),
        (&good, "0", &whole, "not a valid infer request"),
        (&good, "10", &whole, "not a valid infer request"),
        (&binary(json!(-1024)), "", &whole, "binary_data_size"),
        (&binary(json!(u64::MAX)), "", &whole, "binary_data_size"),
        (&binary(json!("1024")), "", &whole, "binary_data_size"),
        (
            &binary(json!(1020)),
            "",
            &whole[..1020],
            "1020 bytes were sent",
        ),
    ];
    for (json, length, bytes, expected) in cases {
        let own = json.len().to_string();
        let length = if length.is_empty() { &own } else { length };
        let headers = [("inference-header-content-length", length)];
        let response = server.request("POST", INFER, &headers, &[json.as_bytes(), bytes].concat());
        assert_eq!(response.status, 400, "{json} {length}: {}", response.text());
        assert!(
            response.error().contains(expected),
            "{json} {length}: {}",
            response.error()
        );
    }
    let extra = [tensor(|_| ()).to_string().as_bytes(), b"more"].concat();
    let length = (extra.len() - 4).to_string();
    let headers = [("inference-header-content-length", &*length)];
    let response = server.request("POST", INFER, &headers, &extra);
    assert!(
        response.error().contains("unexpected bytes"),
        "{}",
        response.error()
    );
    server.assert_healthy();
}

#[test]
fn unknown_paths_are_not_found_and_cannot_leave_the_repository() {
    let dir = workplace();
    fs::write(dir.path().join("secret"), "secret").unwrap();
    let server = Server::start(dir.path(), "");
    let post = [
        "/v2/models/other/infer",
        "/v2/models/rgby/versions/2/infer",
        "/v2/models/rgby/versions/01/infer",
        "/v2/models/..%2f..%2fmodel/infer",
        "/v2/models/rgby/versions/..%2f1/infer",
        "/v2/repository/models/..%2Fmodel.onnx/load",
        "/v2/repository/models/%2e%2e/load",
        "/v2/repository/models/%2Fetc%2Fpasswd/load",
        "/v2/repository/models/other%00/unload",
        "/v2/models/../../secret",
        "/secret",
    ];
    for path in post {
        let response = server.request("POST", path, &[], tensor(|_| ()).to_string().as_bytes());
        assert_eq!(response.status, 404, "{path}: {}", response.text());
        assert!(!response.error().is_empty());
    }
    for path in ["/v2/models/%ff", "/v2/models/a%ff/ready"] {
        assert_eq!(server.get(path).status, 400, "{path}");
    }
    for (method, path) in [
        ("GET", INFER),
        ("DELETE", "/v2"),
        ("BREW", "/v2"),
        ("PUT", "/v1/predict"),
    ] {
        let response = server.request(method, path, &[], b"");
        assert_eq!(response.status, 405, "{method} {path}");
        assert!(
            response.header("allow").is_some(),
            "{method} {path}: {response:?}"
        );
    }
    server.assert_healthy();
}

#[test]
fn uploads_that_are_not_images_are_refused() {
    let dir = workplace_with_samples();
    let server = Server::start(dir.path(), "");
    let good = fs::read(dir.path().join("images/dark_red.png")).unwrap();
    // A small file whose header states 65,535×65,535 pixels.
    let mut bomb = good.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 255, 255, 0, 0, 255, 255]);
    let crc = crc32fast::hash(&bomb[12..29]).to_be_bytes();
    bomb[29..33].copy_from_slice(&crc);
    let mut large = Vec::new();
    let image = image::GrayImage::new(10, 9);
    image
        .write_to(
            &mut std::io::Cursor::new(&mut large),
            image::ImageFormat::Png,
        )
        .unwrap();
    let cases: [(&[u8], &str); 5] = [
        (b"", "empty"),
        (b"GIF89a not an image", "not supported"),
        (b"\x7fELF\x02\x01\x01", "not an image"),
        (&bomb, "65535×65535"),
        (&large, "10×9"),
    ];
    let predict = |fields: &[(&str, &[u8])]| {
        let (content, body) = form(fields);
        server.request("POST", "/v1/predict", &[("content-type", &content)], &body)
    };
    for (bytes, expected) in cases {
        let mut fields: Vec<(&str, &[u8])> = CHANNELS.map(|stain| (stain, &good[..])).into();
        fields[2].1 = bytes;
        let response = predict(&fields);
        assert_eq!(response.status, 400, "{expected}: {}", response.text());
        assert!(
            response.error().starts_with("`blue`"),
            "{}",
            response.error()
        );
        assert!(response.error().contains(expected), "{}", response.error());
    }
    let all: Vec<(&str, &[u8])> = CHANNELS.map(|stain| (stain, &good[..])).into();
    let more = |extra: (&'static str, &'static [u8])| [&all[..], &[extra]].concat();
    let cases = [
        (all[1..].to_vec(), "no file `red`"),
        (more(("red", b"")), "twice"),
        (more(("infrared", b"")), "infrared"),
        (more(("model", b"\xff")), "text"),
        (vec![], "no file `red`"),
    ];
    for (fields, expected) in cases {
        let response = predict(&fields);
        assert_eq!(response.status, 400, "{expected}: {}", response.text());
        assert!(response.error().contains(expected), "{}", response.error());
    }
    assert_eq!(predict(&more(("model", b"other"))).status, 404);
    assert_eq!(predict(&more(("version", b"../1"))).status, 404);
    assert_eq!(server.post("/v1/predict", &json!({})).status, 415);
    let (content, body) = form(&all);
    let cut = server.request(
        "POST",
        "/v1/predict",
        &[("content-type", &content)],
        &body[..50],
    );
    assert_eq!(cut.status, 400, "{}", cut.text());
    server.assert_healthy();
}

#[test]
fn requests_need_a_key_if_keys_are_configured() {
    const KEY: &str = "correct-horse-battery-staple";
    let dir = workplace();
    fs::write(dir.path().join("keys"), format!("# lab\n{KEY}\n")).unwrap();
    let server = Server::start(dir.path(), "--api-key-file keys");
    for path in ["/v2/health/live", "/v2/health/ready", "/openapi.json"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let bearer = format!("Bearer {KEY}");
    let wrong = [
        ("authorization", "Bearer wrong-horse-battery-staple"),
        ("authorization", KEY),
        ("authorization", "Bearer"),
        ("authorization", "Basic Y29ycmVjdA=="),
        ("x-api-key", ""),
        ("x-api-key", &bearer),
        ("x-request-id", KEY),
    ];
    for path in [
        "/v2",
        "/v2/models/rgby",
        "/metrics",
        "/nowhere",
        "/v2/health/ready/../../models/rgby",
    ] {
        for header in wrong {
            let response = server.request("GET", path, &[header], b"");
            assert_eq!(response.status, 401, "{path} {header:?}");
            assert_eq!(response.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(server.post(INFER, &planes(&[[0; 4]])).status, 401);
    for header in [("authorization", &*bearer), ("x-api-key", KEY)] {
        let body = planes(&[[0; 4]]).to_string();
        let response = server.request("POST", INFER, &[header], body.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
    }
    // The log has the request id, but no part of an authorization header.
    let log = server.log().replace(&format!("id=\"{KEY}\""), "");
    assert!(!log.contains("horse"), "{log}");
}

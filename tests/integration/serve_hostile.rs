//! Requests that are wrong, absurd or meant to harm. Each has its answer, and the server goes on.

use std::fs;

use rgby::imaging::CHANNELS;
use serde_json::{Value, json};

use super::serve_support::{Server, form, planes};
use super::support::{SIDE, workplace, workplace_with_samples};

const INFER: &str = "/v2/models/rgby/infer";

/// A tensor of one image with something changed.
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

/// A request of raw planes.
#[allow(clippy::needless_pass_by_value, reason = "literals are given")]
fn raw(shape: Value, datatype: &str, data: Value) -> Value {
    json!({"inputs": [{"name": "planes", "datatype": datatype, "shape": shape, "data": data}]})
}

/// Sends each request, which must be refused with a message that holds what is beside it.
fn assert_refused(server: &Server, cases: &[(Value, &str)]) {
    for (request, wanted) in cases {
        assert_body_refused(server, &request.to_string(), wanted);
    }
    server.assert_well();
}

fn assert_body_refused(server: &Server, body: &str, wanted: &str) {
    let answer = server.ask("POST", INFER, &[], body.as_bytes());
    let body: String = body.chars().take(200).collect();
    assert_eq!(answer.status, 400, "{body}: {}", answer.text());
    let error = answer.error();
    assert!(error.contains(wanted), "{body}: no {wanted} in {error}");
    assert!(error.len() < 500, "{error}");
}

#[test]
fn what_is_no_infer_request_is_told_so() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let deep = format!(r#"{{"inputs": [{}"#, "[".repeat(100_000));
    for body in ["", "{", "[]", "\u{0}\u{1}", "{\"inputs\": 5}", "{}", &deep] {
        assert_body_refused(&server, body, "no infer request");
    }
    let deep_data = (0..20).fold(json!(1), |inner, _| json!([inner]));
    let twice = |r: &mut Value| r["inputs"] = json!([r["inputs"][0], r["inputs"][0]]);
    let outputs = |name: &str| tensor(|r| r["outputs"] = json!([{"name": name}]));
    let parameters = |parameters: Value| tensor(|r| r["parameters"] = parameters.clone());
    let cases = [
        (json!({"inputs": []}), "one input"),
        (tensor(twice), "one input"),
        (input("name", json!("pixels")), "unknown input"),
        (input("data", json!("many")), "no infer request"),
        (
            input("data", json!(vec![Value::Null; 256])),
            "no infer request",
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
        (shape(json!([0, 4, SIDE, SIDE])), "n from 1"),
        (shape(json!([1, 3, SIDE, SIDE])), "must be [n, 4, 8, 8]"),
        (shape(json!([2, 4, SIDE, SIDE])), "256 values"),
        (shape(json!([HUGE, 4, SIDE, SIDE])), "256 values"),
        (
            shape(json!([u64::MAX, 4, SIDE, SIDE])),
            "must be [n, 4, 8, 8]",
        ),
        (shape(json!(vec![HUGE; 5000])), "…"),
        (shape(json!([-1, 4, SIDE, SIDE])), "no infer request"),
        (shape(json!([1.5, 4, SIDE, SIDE])), "no infer request"),
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
fn bytes_that_are_not_what_their_json_says_are_refused() {
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
        (&good, "0", &whole, "no infer request"),
        (&good, "10", &whole, "no infer request"),
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
    for (json, length, bytes, wanted) in cases {
        let own = json.len().to_string();
        let length = if length.is_empty() { &own } else { length };
        let headers = [("inference-header-content-length", length)];
        let answer = server.ask("POST", INFER, &headers, &[json.as_bytes(), bytes].concat());
        assert_eq!(answer.status, 400, "{json} {length}: {}", answer.text());
        assert!(
            answer.error().contains(wanted),
            "{json} {length}: {}",
            answer.error()
        );
    }
    let extra = [tensor(|_| ()).to_string().as_bytes(), b"more"].concat();
    let length = (extra.len() - 4).to_string();
    let headers = [("inference-header-content-length", &*length)];
    let answer = server.ask("POST", INFER, &headers, &extra);
    assert!(answer.error().contains("no input's"), "{}", answer.error());
    server.assert_well();
}

#[test]
fn what_is_not_there_is_not_found_and_nothing_leaves_the_repository() {
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
        let answer = server.ask("POST", path, &[], tensor(|_| ()).to_string().as_bytes());
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert!(!answer.error().is_empty());
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
        let answer = server.ask(method, path, &[], b"");
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(
            answer.header("allow").is_some(),
            "{method} {path}: {answer:?}"
        );
    }
    server.assert_well();
}

#[test]
fn uploads_that_are_no_images_are_refused() {
    let dir = workplace_with_samples();
    let server = Server::start(dir.path(), "");
    let good = fs::read(dir.path().join("images/dark_red.png")).unwrap();
    // A small file that claims 65,535×65,535 pixels.
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
    let ask = |fields: &[(&str, &[u8])]| {
        let (content, body) = form(fields);
        server.ask("POST", "/v1/predict", &[("content-type", &content)], &body)
    };
    for (bytes, wanted) in cases {
        let mut fields: Vec<(&str, &[u8])> = CHANNELS.map(|stain| (stain, &good[..])).into();
        fields[2].1 = bytes;
        let answer = ask(&fields);
        assert_eq!(answer.status, 400, "{wanted}: {}", answer.text());
        assert!(answer.error().starts_with("`blue`"), "{}", answer.error());
        assert!(answer.error().contains(wanted), "{}", answer.error());
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
    for (fields, wanted) in cases {
        let answer = ask(&fields);
        assert_eq!(answer.status, 400, "{wanted}: {}", answer.text());
        assert!(answer.error().contains(wanted), "{}", answer.error());
    }
    assert_eq!(ask(&more(("model", b"other"))).status, 404);
    assert_eq!(ask(&more(("version", b"../1"))).status, 404);
    assert_eq!(server.post("/v1/predict", &json!({})).status, 415);
    let (content, body) = form(&all);
    let cut = server.ask(
        "POST",
        "/v1/predict",
        &[("content-type", &content)],
        &body[..50],
    );
    assert_eq!(cut.status, 400, "{}", cut.text());
    server.assert_well();
}

#[test]
fn keys_are_wanted_where_there_are_any() {
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
            let answer = server.ask("GET", path, &[header], b"");
            assert_eq!(answer.status, 401, "{path} {header:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(server.post(INFER, &planes(&[[0; 4]])).status, 401);
    for header in [("authorization", &*bearer), ("x-api-key", KEY)] {
        let body = planes(&[[0; 4]]).to_string();
        let answer = server.ask("POST", INFER, &[header], body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    // Only the id that was sent on purpose is in the log, and no part of a header of keys.
    let log = server.log().replace(&format!("id=\"{KEY}\""), "");
    assert!(!log.contains("horse"), "{log}");
}

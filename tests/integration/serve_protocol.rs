//! Valid requests of the Open Inference Protocol, and image uploads.

use std::fs;

use rgby::imaging::CHANNELS;
use serde_json::{Value, json};

use super::serve_support::{HttpResponse, Server, form, planes};
use super::support::{
    SIDE, probability, tiny_model_with_embeddings, workplace, workplace_with_samples, write_model,
};

const INFER: &str = "/v2/models/rgby/infer";

/// Asserts the tiny model's outputs for planes with these gray values.
fn assert_outputs(values: &[f32], images: &[[u8; 4]]) {
    assert_eq!(values.len(), images.len() * 28);
    for (row, grays) in values.chunks(28).zip(images) {
        for (class, value) in row.iter().enumerate() {
            let expected = probability(grays[class % 4]);
            assert!(
                (value - expected).abs() < 1e-5,
                "class {class}: {value} for {expected}"
            );
        }
    }
}

/// Returns the network's input for images with one gray value per channel.
fn image_values(images: &[[u8; 4]]) -> Vec<f32> {
    let value = |gray: &u8| (f32::from(*gray) / 255.0 - 0.5) / 0.5;
    let plane = |gray| vec![value(gray); (SIDE * SIDE) as usize];
    images.iter().flatten().flat_map(plane).collect()
}

fn images(images: &[[u8; 4]]) -> Value {
    json!({"inputs": [{
        "name": "image", "datatype": "FP32", "shape": [images.len(), 4, SIDE, SIDE],
        "data": image_values(images),
    }]})
}

#[test]
fn metadata_describes_server_and_models() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--name cells");
    for path in ["/v2/health/live", "/v2/health/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let about = server.get("/v2").json();
    assert_eq!(about["name"], "rgby");
    for extension in ["binary_tensor_data", "model_repository"] {
        assert!(
            about["extensions"]
                .as_array()
                .unwrap()
                .contains(&json!(extension))
        );
    }
    for path in ["/v2/models/cells", "/v2/models/cells/versions/1"] {
        let model = server.get(path).json();
        assert_eq!(model["name"], "cells");
        assert_eq!(model["versions"], json!(["1"]));
        let side = SIDE;
        let expected = json!([
            {"name": "image", "datatype": "FP32", "shape": [-1, 4, side, side]},
            {"name": "planes", "datatype": "UINT8", "shape": [-1, 4, -1, -1]},
        ]);
        assert_eq!(model["inputs"], expected);
        let expected = json!([{"name": "probabilities", "datatype": "FP32", "shape": [-1, 28]}]);
        assert_eq!(model["outputs"], expected);
        let ready = server.get(&format!("{path}/ready"));
        assert_eq!((ready.status, &ready.json()["ready"]), (200, &json!(true)));
    }
    let description = server.get("/openapi.json").json();
    assert_eq!(description["openapi"], "3.1.0");
    let infer = &description["paths"]["/v2/models/{model}/infer"]["post"];
    let timeout = &infer["parameters"][1];
    assert_eq!(
        (
            &timeout["name"],
            &timeout["required"],
            &timeout["schema"]["type"]
        ),
        (&json!("timeout"), &json!(false), &json!(["string"]))
    );
}

#[test]
fn inference_works_with_json() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let grays = [[10, 240, 0, 128], [255, 1, 77, 200]];
    for path in [INFER, "/v2/models/rgby/versions/1/infer"] {
        let mut request = images(&grays);
        request["id"] = json!("the 7th");
        let response = server.post(path, &request);
        assert_outputs(&response.values(), &grays);
        let response = response.json();
        assert_eq!(response["id"], "the 7th");
        assert_eq!(
            (&response["model_name"], &response["model_version"]),
            (&json!("rgby"), &json!("1"))
        );
        let output = &response["outputs"][0];
        assert_eq!(output["name"], "probabilities");
        assert_eq!(
            (&output["datatype"], &output["shape"]),
            (&json!("FP32"), &json!([2, 28]))
        );
    }
    // Nested lists, and one image without a batch dimension.
    let rows = json!([[0, 0], [0, 0]]);
    let nested = json!({"inputs": [{
        "name": "planes", "datatype": "UINT8", "shape": [4, 2, 2], "data": [rows, rows, rows, rows],
    }], "outputs": [{"name": "probabilities"}]});
    let response = server.post(INFER, &nested);
    assert_outputs(&response.values(), &[[0; 4]]);
    assert!(response.json().get("id").is_none());
}

#[test]
fn raw_planes_are_preprocessed() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let grays = [[0, 50, 100, 255], [9, 8, 7, 6], [1, 1, 1, 1]];
    assert_outputs(&server.post(INFER, &planes(&grays)).values(), &grays);
    // 16-bit values are 257 times the 8-bit ones; as numbers and as bytes.
    let pixels: Vec<u16> = [3, 60, 200, 255]
        .into_iter()
        .flat_map(|v| [v * 257; 6])
        .collect();
    let mut request = json!({"inputs": [{
        "name": "planes", "datatype": "UINT16", "shape": [4, 3, 2], "data": pixels,
    }]});
    assert_outputs(&server.post(INFER, &request).values(), &[[3, 60, 200, 255]]);
    let tensor = request["inputs"][0].as_object_mut().unwrap();
    tensor.remove("data");
    tensor.insert(
        "parameters".into(),
        json!({"binary_data_size": pixels.len() * 2}),
    );
    let bytes: Vec<u8> = pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
    let response = binary(&server, &request, &bytes);
    assert_outputs(&response.values(), &[[3, 60, 200, 255]]);
}

/// Sends JSON followed by bytes.
fn binary(server: &Server, request: &Value, bytes: &[u8]) -> HttpResponse {
    let request = request.to_string();
    let length = request.len().to_string();
    let headers = [("inference-header-content-length", &*length)];
    server.request(
        "POST",
        INFER,
        &headers,
        &[request.as_bytes(), bytes].concat(),
    )
}

#[test]
fn inference_works_with_binary_tensors() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let grays = [[10, 240, 0, 128], [255, 1, 77, 200]];
    let bytes: Vec<u8> = image_values(&grays)
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let request = json!({"id": "b", "inputs": [{
        "name": "image", "datatype": "FP32", "shape": [2, 4, SIDE, SIDE],
        "parameters": {"binary_data_size": bytes.len()},
    }]});
    assert_outputs(&binary(&server, &request, &bytes).values(), &grays);
    let mut by_request = request.clone();
    by_request["parameters"] = json!({"binary_data_output": true});
    let mut by_output = request.clone();
    by_output["outputs"] = json!([{"name": "probabilities", "parameters": {"binary_data": true}}]);
    for request in [by_request, by_output] {
        let response = binary(&server, &request, &bytes);
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(
            response.header("content-type"),
            Some("application/octet-stream")
        );
        let length = response.header("inference-header-content-length").unwrap();
        let (json, values) = response.body.split_at(length.parse().unwrap());
        let json: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["id"], "b");
        let size = &json["outputs"][0]["parameters"]["binary_data_size"];
        assert_eq!(size, &json!(values.len()));
        assert!(json["outputs"][0].get("data").is_none());
        let values = values.as_chunks().0.iter().copied().map(f32::from_le_bytes);
        assert_outputs(&values.collect::<Vec<_>>(), &grays);
    }
}

#[test]
fn models_with_embeddings_return_them() {
    let dir = workplace();
    write_model(
        &dir.path().join("model.onnx"),
        &tiny_model_with_embeddings(),
    );
    let server = Server::start(dir.path(), "");
    let grays = [[255, 0, 255, 0]];
    let response = server.post(INFER, &planes(&grays));
    assert_outputs(&response.values(), &grays);
    let embeddings = json!({"name": "embeddings", "datatype": "FP32", "shape": [1, 4],
                            "data": [1.0, -1.0, 1.0, -1.0]});
    assert_eq!(response.json()["outputs"][1], embeddings);
    let mut request = planes(&grays);
    request["outputs"] = json!([{"name": "embeddings"}]);
    let response = server.post(INFER, &request).json();
    assert_eq!(response["outputs"], json!([embeddings]));
    let model = server.get("/v2/models/rgby").json();
    assert_eq!(model["outputs"][1]["name"], "embeddings");
}

#[test]
fn uploaded_images_are_classified() {
    let dir = workplace_with_samples();
    let server = Server::start(dir.path(), "");
    let file =
        |stain: &str| fs::read(dir.path().join(format!("images/mixed_{stain}.png"))).unwrap();
    let files = CHANNELS.map(|stain| (stain, file(stain)));
    // The order of the fields does not matter.
    let fields: Vec<_> = files
        .iter()
        .rev()
        .map(|(stain, bytes)| (*stain, &bytes[..]))
        .collect();
    let (content, body) = form(&fields);
    let response = server.request("POST", "/v1/predict", &[("content-type", &content)], &body);
    assert_eq!(response.status, 200, "{}", response.text());
    let response = response.json();
    assert_eq!(
        (&response["model_name"], &response["model_version"]),
        (&json!("rgby"), &json!("1"))
    );
    let classes = response["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 28);
    let mut names = Vec::new();
    for (index, class) in classes.iter().enumerate() {
        let expected = probability(if index % 4 == 0 { 240 } else { 10 });
        let found = class["probability"].as_f64().unwrap() as f32;
        assert!((found - expected).abs() < 1e-5);
        assert_eq!(class["threshold"], if index == 27 { 1.0 } else { 0.5 });
        assert_eq!(class["present"], index % 4 == 0);
        if index % 4 == 0 {
            names.push(class["name"].clone());
        }
    }
    assert_eq!(response["predicted"], Value::from(names));
}

#[test]
fn requests_have_ids_and_metrics() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--log-format json");
    let given = server.request("GET", "/v2", &[("x-request-id", "from-the-proxy")], b"");
    assert_eq!(given.header("x-request-id"), Some("from-the-proxy"));
    let made = server.get("/v2").header("x-request-id").unwrap().to_owned();
    assert_eq!(made.len(), 32);
    let endless = "x".repeat(129);
    let refused = server.request("GET", "/v2", &[("x-request-id", &endless)], b"");
    assert_eq!(refused.header("x-request-id").unwrap().len(), 32);
    server.post(INFER, &planes(&[[0; 4]; 3]));
    server.get("/nowhere");
    let counted = |metric: &str, expected: f64| {
        assert!((server.metric(metric) - expected).abs() < 0.5, "{metric}");
    };
    counted(
        r#"rgby_requests_total{method="GET",route="/v2",status="200"}"#,
        3.0,
    );
    counted(
        r#"rgby_requests_total{method="POST",route="/v2/models/{model}/infer",status="200"}"#,
        1.0,
    );
    counted(r#"rgby_errors_total{cause="unknown"}"#, 1.0);
    counted(r#"rgby_batch_images_sum{model="rgby"}"#, 3.0);
    for stage in ["prepare", "queue", "infer", "total"] {
        let metric =
            format!(r#"rgby_stage_duration_seconds_count{{model="rgby",stage="{stage}"}}"#);
        counted(&metric, 1.0);
    }
    let log = server.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let line = lines
        .iter()
        .find(|line| line["span"]["id"] == "from-the-proxy");
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert_eq!(
        (&line["status"], &line["path"]),
        (&json!(200), &json!("/v2"))
    );
}

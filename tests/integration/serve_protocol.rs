//! The Open Inference Protocol and uploads, as clients in good standing use them.

use std::fs;

use rgby::imaging::CHANNELS;
use serde_json::{Value, json};

use super::serve_support::{Answer, Server, form, planes};
use super::support::{
    SIDE, probability, tiny_model_with_embeddings, workplace, workplace_with_samples, write_model,
};

const INFER: &str = "/v2/models/rgby/infer";

/// What the tiny model says of planes of those gray values.
fn assert_says(values: &[f32], images: &[[u8; 4]]) {
    assert_eq!(values.len(), images.len() * 28);
    for (row, grays) in values.chunks(28).zip(images) {
        for (class, value) in row.iter().enumerate() {
            let wanted = probability(grays[class % 4]);
            assert!(
                (value - wanted).abs() < 1e-5,
                "class {class}: {value} for {wanted}"
            );
        }
    }
}

/// The network's input for images of one gray value in each channel.
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
fn it_says_what_it_is() {
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
        let wanted = json!([
            {"name": "image", "datatype": "FP32", "shape": [-1, 4, side, side]},
            {"name": "planes", "datatype": "UINT8", "shape": [-1, 4, -1, -1]},
        ]);
        assert_eq!(model["inputs"], wanted);
        let wanted = json!([{"name": "probabilities", "datatype": "FP32", "shape": [-1, 28]}]);
        assert_eq!(model["outputs"], wanted);
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
fn json_goes_in_and_out() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let grays = [[10, 240, 0, 128], [255, 1, 77, 200]];
    for path in [INFER, "/v2/models/rgby/versions/1/infer"] {
        let mut request = images(&grays);
        request["id"] = json!("the 7th");
        let answer = server.post(path, &request);
        assert_says(&answer.values(), &grays);
        let answer = answer.json();
        assert_eq!(answer["id"], "the 7th");
        assert_eq!(
            (&answer["model_name"], &answer["model_version"]),
            (&json!("rgby"), &json!("1"))
        );
        let output = &answer["outputs"][0];
        assert_eq!(output["name"], "probabilities");
        assert_eq!(
            (&output["datatype"], &output["shape"]),
            (&json!("FP32"), &json!([2, 28]))
        );
    }
    // Nested as the shape says, and one image without the batch's dimension.
    let rows = json!([[0, 0], [0, 0]]);
    let nested = json!({"inputs": [{
        "name": "planes", "datatype": "UINT8", "shape": [4, 2, 2], "data": [rows, rows, rows, rows],
    }], "outputs": [{"name": "probabilities"}]});
    let answer = server.post(INFER, &nested);
    assert_says(&answer.values(), &[[0; 4]]);
    assert!(answer.json().get("id").is_none());
}

#[test]
fn raw_planes_are_prepared_as_the_model_says() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    let grays = [[0, 50, 100, 255], [9, 8, 7, 6], [1, 1, 1, 1]];
    assert_says(&server.post(INFER, &planes(&grays)).values(), &grays);
    // 16 bits: 257 times as much, in either form.
    let pixels: Vec<u16> = [3, 60, 200, 255]
        .into_iter()
        .flat_map(|v| [v * 257; 6])
        .collect();
    let mut request = json!({"inputs": [{
        "name": "planes", "datatype": "UINT16", "shape": [4, 3, 2], "data": pixels,
    }]});
    assert_says(&server.post(INFER, &request).values(), &[[3, 60, 200, 255]]);
    let tensor = request["inputs"][0].as_object_mut().unwrap();
    tensor.remove("data");
    tensor.insert(
        "parameters".into(),
        json!({"binary_data_size": pixels.len() * 2}),
    );
    let bytes: Vec<u8> = pixels.iter().flat_map(|v| v.to_le_bytes()).collect();
    let answer = binary(&server, &request, &bytes);
    assert_says(&answer.values(), &[[3, 60, 200, 255]]);
}

/// Sends JSON with bytes behind it.
fn binary(server: &Server, request: &Value, bytes: &[u8]) -> Answer {
    let request = request.to_string();
    let length = request.len().to_string();
    let headers = [("inference-header-content-length", &*length)];
    server.ask(
        "POST",
        INFER,
        &headers,
        &[request.as_bytes(), bytes].concat(),
    )
}

#[test]
fn tensors_go_in_and_out_as_bytes() {
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
    assert_says(&binary(&server, &request, &bytes).values(), &grays);
    let mut by_request = request.clone();
    by_request["parameters"] = json!({"binary_data_output": true});
    let mut by_output = request.clone();
    by_output["outputs"] = json!([{"name": "probabilities", "parameters": {"binary_data": true}}]);
    for request in [by_request, by_output] {
        let answer = binary(&server, &request, &bytes);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            answer.header("content-type"),
            Some("application/octet-stream")
        );
        let length = answer.header("inference-header-content-length").unwrap();
        let (json, values) = answer.body.split_at(length.parse().unwrap());
        let json: Value = serde_json::from_slice(json).unwrap();
        assert_eq!(json["id"], "b");
        let size = &json["outputs"][0]["parameters"]["binary_data_size"];
        assert_eq!(size, &json!(values.len()));
        assert!(json["outputs"][0].get("data").is_none());
        let values = values.as_chunks().0.iter().copied().map(f32::from_le_bytes);
        assert_says(&values.collect::<Vec<_>>(), &grays);
    }
}

#[test]
fn embeddings_are_an_output_of_models_that_have_them() {
    let dir = workplace();
    write_model(
        &dir.path().join("model.onnx"),
        &tiny_model_with_embeddings(),
    );
    let server = Server::start(dir.path(), "");
    let grays = [[255, 0, 255, 0]];
    let answer = server.post(INFER, &planes(&grays));
    assert_says(&answer.values(), &grays);
    let embeddings = json!({"name": "embeddings", "datatype": "FP32", "shape": [1, 4],
                            "data": [1.0, -1.0, 1.0, -1.0]});
    assert_eq!(answer.json()["outputs"][1], embeddings);
    let mut request = planes(&grays);
    request["outputs"] = json!([{"name": "embeddings"}]);
    let answer = server.post(INFER, &request).json();
    assert_eq!(answer["outputs"], json!([embeddings]));
    let model = server.get("/v2/models/rgby").json();
    assert_eq!(model["outputs"][1]["name"], "embeddings");
}

#[test]
fn images_go_in_and_classes_out() {
    let dir = workplace_with_samples();
    let server = Server::start(dir.path(), "");
    let file =
        |stain: &str| fs::read(dir.path().join(format!("images/mixed_{stain}.png"))).unwrap();
    let files = CHANNELS.map(|stain| (stain, file(stain)));
    // In any order.
    let fields: Vec<_> = files
        .iter()
        .rev()
        .map(|(stain, bytes)| (*stain, &bytes[..]))
        .collect();
    let (content, body) = form(&fields);
    let answer = server.ask("POST", "/v1/predict", &[("content-type", &content)], &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (&answer["model_name"], &answer["model_version"]),
        (&json!("rgby"), &json!("1"))
    );
    let classes = answer["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 28);
    let mut names = Vec::new();
    for (index, class) in classes.iter().enumerate() {
        let wanted = probability(if index % 4 == 0 { 240 } else { 10 });
        let found = class["probability"].as_f64().unwrap() as f32;
        assert!((found - wanted).abs() < 1e-5);
        assert_eq!(class["threshold"], if index == 27 { 1.0 } else { 0.5 });
        assert_eq!(class["present"], index % 4 == 0);
        if index % 4 == 0 {
            names.push(class["name"].clone());
        }
    }
    assert_eq!(answer["predicted"], Value::from(names));
}

#[test]
fn requests_have_ids_and_are_counted() {
    let dir = workplace();
    let server = Server::start(dir.path(), "--log-format json");
    let given = server.ask("GET", "/v2", &[("x-request-id", "from-the-proxy")], b"");
    assert_eq!(given.header("x-request-id"), Some("from-the-proxy"));
    let made = server.get("/v2").header("x-request-id").unwrap().to_owned();
    assert_eq!(made.len(), 32);
    let endless = "x".repeat(129);
    let refused = server.ask("GET", "/v2", &[("x-request-id", &endless)], b"");
    assert_eq!(refused.header("x-request-id").unwrap().len(), 32);
    server.post(INFER, &planes(&[[0; 4]; 3]));
    server.get("/nowhere");
    let counted = |metric: &str, wanted: f64| {
        assert!((server.metric(metric) - wanted).abs() < 0.5, "{metric}");
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

//! Model folders, versions, and replacing models under load.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::serve_support::{HttpResponse, Server, form, planes, receive, send};
use super::support::{
    assert_refused, change_spec, probability, tiny_model, workplace, write_model,
};

/// Writes a tiny model with the given architecture name.
fn write(path: &Path, arch: &str) {
    let mut model = tiny_model();
    change_spec(&mut model, |spec| spec.arch = arch.into());
    write_model(path, &model);
}

fn infer(server: &Server, path: &str) -> HttpResponse {
    server.post(path, &planes(&[[9; 4]]))
}

fn index(server: &Server) -> Value {
    let index = server.post("/v2/repository/index", &json!({})).json();
    assert_eq!(
        server.post("/v2/repository/index", &json!(null)).json(),
        index
    );
    index
}

#[test]
fn a_folder_contains_models_and_versions() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    for version in ["1", "2", "10", "03", "0", "x"] {
        write(
            &models.join(version).join("model.onnx"),
            &format!("v{version}"),
        );
    }
    write(&models.join("other/7/model.onnx"), "other");
    fs::create_dir_all(models.join("empty/1")).unwrap();
    fs::create_dir_all(models.join(".hidden/1")).unwrap();
    let server = Server::start_with(dir.path(), "--model-dir models --versions 2 --name mine");
    let response = infer(&server, "/v2/models/mine/infer");
    assert!((response.values()[0] - probability(9)).abs() < 1e-5);
    assert_eq!(response.json()["model_version"], "10");
    assert_eq!(
        infer(&server, "/v2/models/mine/versions/2/infer").json()["model_version"],
        "2"
    );
    assert_eq!(
        infer(&server, "/v2/models/mine/versions/1/infer").status,
        404
    );
    assert_eq!(
        infer(&server, "/v2/models/other/infer").json()["model_version"],
        "7"
    );
    let metadata = server.get("/v2/models/mine").json();
    assert_eq!(metadata["versions"], json!(["2", "10"]));
    assert_eq!(metadata["parameters"]["arch"], "v10");
    let entry = |name: &str, version: &str, state: &str| json!({"name": name, "version": version, "state": state, "reason": ""});
    let expected = json!([
        entry("mine", "1", "UNAVAILABLE"),
        entry("mine", "2", "READY"),
        entry("mine", "10", "READY"),
        entry("other", "7", "READY"),
    ]);
    assert_eq!(index(&server), expected);
    let ready = server
        .post("/v2/repository/index", &json!({"ready": true}))
        .json();
    assert_eq!(ready.as_array().unwrap().len(), 3);
    // With several models, an upload must name one.
    let (content, body) = form(&[]);
    let response = server.request("POST", "/v1/predict", &[("content-type", &content)], &body);
    assert_eq!(response.status, 400);
    assert!(
        response.error().contains("`mine`, `other`"),
        "{}",
        response.error()
    );
}

#[test]
fn models_can_be_unloaded_and_reloaded() {
    let dir = workplace();
    let server = Server::start(dir.path(), "");
    assert_eq!(
        server
            .post("/v2/repository/models/rgby/unload", &json!({}))
            .status,
        200
    );
    assert_eq!(infer(&server, "/v2/models/rgby/infer").status, 404);
    assert_eq!(server.get("/v2/models/rgby/ready").status, 404);
    assert_eq!(
        server
            .post("/v2/repository/models/rgby/unload", &json!({}))
            .status,
        404
    );
    assert_eq!(index(&server)[0]["state"], "UNAVAILABLE");
    assert_eq!(
        server
            .post("/v2/repository/models/rgby/load", &json!({}))
            .status,
        200
    );
    assert_eq!(infer(&server, "/v2/models/rgby/infer").status, 200);
    server.assert_healthy();
}

#[test]
fn replacing_a_model_under_load_loses_no_request() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.onnx");
    write(&model, "first");
    let server = Server::start(dir.path(), "--max-batch 4");
    let arch = || server.get("/v2/models/rgby").json()["parameters"]["arch"].clone();
    let done = AtomicBool::new(false);
    let body = planes(&[[9; 4]]).to_string();
    let client = || {
        let mut stream = server.connect();
        let mut responses = 0;
        while !done.load(Ordering::Relaxed) {
            send(
                &mut stream,
                "POST",
                "/v2/models/rgby/infer",
                &[],
                body.as_bytes(),
            )
            .unwrap();
            let response = receive(&mut stream).unwrap();
            assert!((response.values()[0] - probability(9)).abs() < 1e-5);
            responses += 1;
        }
        responses
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        for round in 0..5 {
            let name = format!("round {round}");
            write(&model, &name);
            if round % 2 == 0 {
                let response = server.post("/v2/repository/models/rgby/load", &json!({}));
                assert_eq!(response.status, 200, "{}", response.text());
            } else {
                server.signal("HUP");
                while arch() != *name {
                    thread::yield_now();
                }
            }
            assert_eq!(arch(), *name);
        }
        // A model that cannot be loaded leaves the loaded one in use.
        for bytes in [&b"not a model"[..], b""] {
            fs::write(&model, bytes).unwrap();
            let response = server.post("/v2/repository/models/rgby/load", &json!({}));
            assert_eq!(response.status, 422, "{}", response.text());
            assert!(
                response.error().contains("not an ONNX model"),
                "{}",
                response.error()
            );
        }
        let mut broken = tiny_model();
        broken.graph.as_mut().unwrap().node[0].op_type = "Frobnicate".into();
        write_model(&model, &broken);
        let response = server.post("/v2/repository/models/rgby/load", &json!({}));
        assert_eq!(response.status, 422, "{}", response.text());
        assert!(
            index(&server)[0]["reason"]
                .as_str()
                .unwrap()
                .contains("Frobnicate")
        );
        assert_eq!(arch(), "round 4");
        done.store(true, Ordering::Relaxed);
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
    });
    server.assert_healthy();
}

#[test]
fn startup_errors_exit_before_the_server_is_ready() {
    let dir = workplace();
    fs::create_dir(dir.path().join("nothing")).unwrap();
    fs::write(dir.path().join("bad.onnx"), "not a model").unwrap();
    fs::write(dir.path().join("keys"), "short\n").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let listen = format!("serve --model model.onnx --addr {addr} --quiet");
    let grpc = format!("serve --model model.onnx --addr 127.0.0.1:0 --grpc-addr {addr} --quiet");
    let cases: [(&str, &[&str]); 9] = [
        ("serve --quiet", &["--model"]),
        (
            "serve --quiet --addr 127.0.0.1:0 --model bad.onnx",
            &["bad.onnx", "not an ONNX model"],
        ),
        (
            "serve --quiet --addr 127.0.0.1:0 --model-dir nothing",
            &["<version>/model.onnx"],
        ),
        (
            "serve --quiet --model model.onnx --max-queue 8",
            &["--max-queue 8", "--max-batch 32"],
        ),
        ("serve --quiet --model model.onnx --name 12", &["--name"]),
        (
            "serve --quiet --model model.onnx --max-delay 5",
            &["--max-delay"],
        ),
        (
            "serve --quiet --addr 127.0.0.1:0 --model model.onnx --api-key-file keys",
            &["line 1"],
        ),
        (&listen, &["--addr", "cannot listen"]),
        (&grpc, &["--grpc-addr", "cannot listen"]),
    ];
    assert_refused(dir.path(), &cases);
}

//! Tests of the programs in `examples/`, which use the public library: convert, train, score and
//! serve.

#[allow(dead_code, reason = "`main` is not called here")]
#[path = "../../examples/convert.rs"]
mod convert;
#[allow(dead_code, reason = "`main` is not called here")]
#[path = "../../examples/score.rs"]
mod score;
#[allow(dead_code, reason = "`main` is not called here")]
#[path = "../../examples/serve.rs"]
mod serve;
#[allow(dead_code, reason = "`main` is not called here")]
#[path = "../../examples/train.rs"]
mod train;

use std::process::Command;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use rgby::model::{Arch, random_export};
use rgby::train::{Config, RunEnd};
use tower::ServiceExt;

use crate::support::{must, read, write_model};
use crate::train_support::workplace;

const CONFIG: &str = "\
[model]
arch = \"resnet50\"
input_size = 32
[train]
epochs = 1
batch_size = 2
steps_per_epoch = 2
[optimizer]
name = \"adam\"
";

/// Returns the response of the application to a `GET` request.
fn get(app: &axum::Router, path: &str) -> String {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let body = async {
        let response = app.clone().oneshot(request).await.unwrap();
        assert!(response.status().is_success(), "{path}: {response:?}");
        response.into_body().collect().await.unwrap().to_bytes()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bytes = runtime.block_on(body);
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
#[ignore = "examples_convert_train_score_and_serve runs it in a separate process"]
fn examples() {
    let dir = workplace(6, "0,25");
    let path = dir.path();
    let (pretrained, initial) = (path.join("pretrained.onnx"), path.join("initial"));
    write_model(&pretrained, &random_export(Arch::ResNet50, 1).unwrap());
    convert::convert(&pretrained, &initial).unwrap();

    let config = Config::parse("library.rs", CONFIG, &[]).unwrap();
    let (images, labels) = (path.join("data/images"), path.join("data/labels.csv"));
    let ended = train::start(config, &initial, (&images, &labels), &path.join("run"));
    assert_eq!(ended.unwrap(), RunEnd::Finished);

    must(path, "export --from run --out model.onnx");
    let model = path.join("model.onnx");
    let report = score::predict(&model, &images, &path.join("example.csv")).unwrap();
    assert_eq!((report.samples, report.failed), (6, 0));
    must(
        path,
        "score --model model.onnx --images data/images --out out.csv",
    );
    assert_eq!(read(path, "example.csv"), read(path, "out.csv"));
    let app = serve::app(&model).unwrap();
    assert_eq!(get(&app, "/"), "cells are at /cells/");
    let about = get(&app, "/cells/v1/about");
    assert!(about.contains("Nucleoplasm"), "{about}");
    get(&app, "/cells/v2/models/rgby/ready");
}

/// Runs [`examples`] in a separate process, because the engine is initialized once per process.
#[test]
fn examples_convert_train_score_and_serve() {
    let this = std::env::current_exe().unwrap();
    let output = Command::new(this)
        .args(["--exact", "library::examples", "--ignored", "--nocapture"])
        // Unoptimized, the generated networks need more stack than the 2 MiB of a test thread.
        .env("RUST_MIN_STACK", "16777216")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("1 passed"),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

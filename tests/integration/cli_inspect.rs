//! `rgby inspect` on checkpoints, runs and ONNX files of any origin.

use std::fs;
use std::path::Path;

use rgby::graph::Message;
use rgby::model::{Arch, random_export};
use serde_json::Value;

use crate::onnx_support::fold_batch_norms;
use crate::support::{assert_refused, json, must, read, run, tiny_model, write_model};
use crate::train_support::{DATA, workplace};

fn inspect(dir: &Path, name: &str) -> Value {
    json(dir, &format!("inspect --json {name}"))
}

#[test]
fn predicts_the_conversion_of_a_pretrained_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut model = random_export(Arch::ResNet50, 3).unwrap();
    write_model(&path.join("kept.onnx"), &model);
    fold_batch_norms(&mut model);
    write_model(&path.join("folded.onnx"), &model);
    let kept = inspect(path, "kept.onnx");
    assert_eq!(kept["kind"], "onnx");
    assert_eq!(kept["spec"], Value::Null);
    assert_eq!(kept["convert"]["would"], "convert");
    assert_eq!(kept["convert"]["arch"], "resnet50");
    assert_eq!(kept["convert"]["unfolded"], 0);
    assert_eq!(kept["onnx"]["inputs"][0]["shape"][1], "3");
    assert_eq!(kept["onnx"]["inputs"][0]["type"], "float32");
    let operators = kept["onnx"]["operators"].as_array().unwrap();
    let convolutions = operators.iter().find(|o| o["operator"] == "Conv").unwrap();
    assert_eq!(convolutions["count"], 53);
    let folded = inspect(path, "folded.onnx");
    assert_eq!(folded["convert"]["unfolded"], 53);
    let text = must(path, "inspect folded.onnx").stdout;
    for part in [
        "convert     possible, as resnet50",
        "53 BatchNorm layers unfolded",
        "opset",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    // The conversion does what was predicted.
    let converted = json(path, "convert --onnx folded.onnx --out ckpt --json");
    for key in [
        "arch", "matched", "unfolded", "absorbed", "rescaled", "dropped",
    ] {
        assert_eq!(folded["convert"][key], converted[key], "{key}");
    }
    let checkpoint = inspect(path, "ckpt");
    assert_eq!(checkpoint["kind"], "checkpoint");
    assert_eq!(checkpoint["unfolded"], 53);
}

#[test]
fn names_the_first_difference_of_an_unknown_network() {
    let exports = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports/small");
    let mut tried = 0;
    for entry in fs::read_dir(&exports).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // The skeleton has no weights.
        let is_model = Path::new(&name).extension() == Some("onnx".as_ref());
        if !is_model || name == "skeleton.onnx" {
            continue;
        }
        tried += 1;
        let seen = inspect(&exports, &name);
        assert_eq!(seen["convert"]["would"], "refuse", "{name}");
        let reason = seen["convert"]["reason"].as_str().unwrap();
        for part in [
            "is not a network that rgby knows",
            "expected ",
            "; found ",
            "nearest",
        ] {
            assert!(reason.contains(part), "{name}: no {part} in {reason}");
        }
        assert!(seen["parameters"].as_u64().unwrap() > 100, "{name}");
        if name.contains("external") {
            assert!(
                seen["onnx"]["external"][format!("{name}.data")].as_u64() > Some(1),
                "{seen}"
            );
        }
    }
    assert!(tried > 10, "{tried}");
}

#[test]
fn describes_files_that_convert_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut newer = tiny_model();
    newer.metadata_props.clear();
    newer.opset_import[0].version = 99;
    newer.producer_name = "evil\u{1b}[31m".into();
    write_model(&path.join("newer.onnx"), &newer);
    let seen = inspect(path, "newer.onnx");
    assert_eq!(seen["onnx"]["opsets"]["ai.onnx"], 99);
    let reason = seen["convert"]["reason"].as_str().unwrap();
    assert!(reason.contains("operator set 99"), "{reason}");
    let text = must(path, "inspect newer.onnx").stdout;
    assert!(!text.contains('\u{1b}'), "{text:?}");

    let mut outside = random_export(Arch::ResNet50, 3).unwrap();
    let tensor = &mut outside.graph.mut_or_insert_default().initializer[0];
    tensor.raw_data.clear();
    tensor.float_data.clear();
    tensor.external_data.push(<_>::default());
    tensor.external_data[0].key = "location".into();
    tensor.external_data[0].value = "../secret".into();
    write_model(&path.join("outside.onnx"), &outside);
    let seen = inspect(path, "outside.onnx");
    assert_eq!(seen["onnx"]["external"]["../secret"], 1);
    let reason = seen["convert"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("only files below the model's own folder"),
        "{reason}"
    );
}

#[test]
fn rejects_files_that_are_not_onnx() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let bytes = tiny_model().write_to_bytes().unwrap();
    fs::write(path.join("cut.onnx"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(path.join("empty.onnx"), "").unwrap();
    fs::write(path.join("text.onnx"), "no model at all").unwrap();
    fs::create_dir(path.join("folder")).unwrap();
    assert_refused(
        path,
        &[
            ("inspect cut.onnx", &["cut.onnx"]),
            (
                "inspect empty.onnx",
                &["empty.onnx", "is not an ONNX model"],
            ),
            ("inspect text.onnx", &["text.onnx", "is not an ONNX model"]),
            ("inspect folder", &["folder", "is not a checkpoint"]),
            ("inspect nowhere.onnx", &["nowhere.onnx"]),
        ],
    );
}

#[test]
fn shows_the_progress_of_a_run() {
    let dir = workplace(12, "0,25");
    let path = dir.path();
    let set = "--set train.steps_per_epoch=1 --set train.epochs=3";
    must(
        path,
        &format!("train --config baseline.toml {set} {DATA} --out run"),
    );
    let seen = inspect(path, "run");
    assert_eq!(seen["kind"], "run");
    assert_eq!(seen["run"]["epochs"], 3);
    assert_eq!(seen["run"]["metrics"].as_array().unwrap().len(), 3);
    assert_eq!(seen["config"]["train"]["epochs"], 3);
    let losses = seen["run"]["metrics"].as_array().unwrap().iter();
    let lowest = losses.min_by(|a, b| {
        let [a, b] = [a, b].map(|row| row["valid_loss"].as_f64().unwrap());
        a.total_cmp(&b)
    });
    assert_eq!(&seen["run"]["best"], lowest.unwrap());
    let text = must(path, "inspect run").stdout;
    for part in [
        "  run         3 epochs",
        "  best        epoch ",
        "  last        epoch 3: ",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let last = inspect(path, "run/checkpoints/last");
    assert_eq!(
        (&last["kind"], &last["run"]),
        (&"checkpoint".into(), &Value::Null)
    );
    // A damaged table is an error.
    fs::write(path.join("run/metrics.csv"), "epoch\nx\n").unwrap();
    assert!(read(path, "run/config.toml").contains("[train]"));
    let damaged = run(path, "inspect run");
    assert_eq!(damaged.code, Some(2), "{damaged:?}");
    assert!(damaged.stderr.contains("metrics.csv"), "{damaged:?}");
}

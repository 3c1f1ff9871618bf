//! `rgby train`: networks learn, checkpoints are exported, and invalid input is rejected.

use std::fs;
use std::path::Path;

use rgby::model::{Arch, random_export};
use serde_json::Value;

use crate::onnx_support::fold_batch_norms;
use crate::support::{
    assert_refused, json, must, ort_library, probabilities, read, skipped, write_model,
};
use crate::train_support::{BASELINE, DATA, assert_same, evaluate, workplace};

#[test]
fn the_baseline_overfits_32_samples() {
    let dir = workplace(32, "0,7,21,25");
    let path = dir.path();
    must(
        path,
        &format!(
            "train -q --config baseline.toml --set train.epochs=60 --set model.input_size=64 {DATA} --out run"
        ),
    );
    must(
        path,
        "export -q --engine tract --from run/checkpoints/last --out model.onnx",
    );
    let f1 = &evaluate(path, "model.onnx", "data")["macro_f1_present"];
    assert_eq!(
        f1.as_f64(),
        Some(1.0),
        "macro-F1 over the classes that occur"
    );
    for file in [
        "config.toml",
        "metrics.csv",
        "log.txt",
        "plots/loss.svg",
        "plots/f1.svg",
    ] {
        assert!(path.join("run").join(file).is_file(), "{file}");
    }
}

#[test]
fn resnet50_exceeds_chance_after_a_few_epochs() {
    let dir = workplace(256, "0,1,14,25");
    let path = dir.path();
    must(
        path,
        "synth --out test --count 96 --size 64 --seed 1 --classes 0,1,14,25",
    );
    convert_random_resnet(path);
    must(
        path,
        &format!(
            "train --from initial --config baseline.toml --set model.arch=resnet50 \
             --set model.hidden=[] --set model.input_size=64 --set train.epochs=5 {DATA} --out run"
        ),
    );
    must(path, "export -q --engine tract --from run --out model.onnx");
    let report = evaluate(path, "model.onnx", "test");
    let number = |value: &Value| value.as_f64().unwrap();
    let (f1, guess) = (
        number(&report["macro_f1"]),
        number(&report["chance"]["class_frequency"]),
    );
    // Predicting no class has an F1 of 0.
    assert!(
        f1 > 0.0 && f1 > 1.1 * guess,
        "macro-F1 {f1}, by class frequency {guess}"
    );
}

#[test]
fn recalibrates_a_folded_file_before_training_and_retrains_a_model_file() {
    let dir = workplace(16, "0,14");
    let path = dir.path();
    let mut export = random_export(Arch::ResNet50, 2).unwrap();
    fold_batch_norms(&mut export);
    write_model(&path.join("folded.onnx"), &export);
    let converted = must(path, "convert --onnx folded.onnx --out initial");
    let said = "unfolded  53 BatchNorm layers";
    assert!(converted.stderr.contains(said), "{converted:?}");
    let config = "--config baseline.toml --set model.arch=resnet50 --set model.hidden=[] \
                  --set train.epochs=1 --set train.batch_size=8";
    let run = must(
        path,
        &format!("train --from initial {config} {DATA} --out run"),
    );
    // All samples, because there are fewer than the default number.
    let measured = "measuring BatchNorm statistics on 16 samples";
    assert!(run.stderr.contains(measured), "{run:?}");
    assert!(read(path, "run/log.txt").contains("recalibrated 53 BatchNorm layers"));
    let off = must(
        path,
        &format!("train --from initial --recalibrate 0 {config} {DATA} --out off"),
    );
    assert!(!off.stderr.contains("measuring"), "{off:?}");

    must(path, "export -q --engine tract --from run --out model.onnx");
    let again = must(
        path,
        &format!("retrain --from model.onnx {config} {DATA} --out again"),
    );
    assert!(
        again
            .stderr
            .contains("starting from model.onnx, its head kept")
            && !again.stderr.contains("measuring"),
        "{again:?}"
    );
    // A pretrained file with folded BatchNorm is converted first.
    let folded = must(
        path,
        &format!("retrain --from folded.onnx {config} {DATA} --out folded"),
    );
    assert!(
        folded.stderr.contains("its head replaced by a new one")
            && folded.stderr.contains("measuring"),
        "{folded:?}"
    );
}

fn convert_random_resnet(path: &Path) {
    let source = random_export(Arch::ResNet50, 1).unwrap();
    write_model(&path.join("source.onnx"), &source);
    must(
        path,
        "convert --arch resnet50 --onnx source.onnx --out initial",
    );
}

#[test]
fn the_demo_exceeds_chance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let shown = must(path, "demo --out demo");
    for part in ["macro-F1", "Next:", "rgby serve --model demo/model.onnx"] {
        assert!(shown.stdout.contains(part), "{part}: {}", shown.stdout);
    }
    let report = evaluate(path, "demo/model.onnx", "demo/test");
    let number = |value: &Value| value.as_f64().unwrap();
    let (f1, chance) = (
        number(&report["macro_f1"]),
        number(&report["chance"]["best"]),
    );
    assert!(f1 > 1.2 * chance, "macro-F1 {f1}, chance {chance}");
}

#[test]
fn engines_and_burn_agree() {
    let dir = workplace(6, "0,7,25");
    let path = dir.path();
    convert_random_resnet(path);
    let difference = |engine: &str| -> f64 {
        // The export compares the engine with Burn and would fail past 1e-4.
        let report = json(
            path,
            &format!("export --json {engine} --from initial --out model.onnx"),
        );
        report["largest_difference"].as_f64().unwrap()
    };
    assert!(difference("--engine tract") <= 1e-4);
    let Some(library) = ort_library() else {
        return skipped("ONNX Runtime is not installed; only tract was compared with Burn");
    };
    let onnxruntime = format!("--engine onnxruntime --ort-lib {}", library.display());
    assert!(difference(&onnxruntime) <= 1e-4);
    let mut scores = Vec::new();
    for (name, engine) in [("a", "--engine tract"), ("b", onnxruntime.as_str())] {
        must(
            path,
            &format!(
                "score --model model.onnx {engine} --images data/images --out {name}.csv --scores {name}s.csv"
            ),
        );
        scores.push(probabilities(path, &format!("{name}s.csv")));
    }
    assert_eq!(scores[0].len(), 6);
    for (id, expected) in &scores[0] {
        for (a, b) in expected.iter().zip(&scores[1][id]) {
            assert!((a - b).abs() <= 1e-4, "{id}: {a} {b}");
        }
    }
}

#[test]
fn rejects_invalid_input_by_name() {
    let dir = workplace(4, "0,25");
    let path = dir.path();
    must(
        path,
        &format!("train -q --config baseline.toml {DATA} --out run"),
    );
    fs::write(path.join("file"), "").unwrap();
    fs::write(
        path.join("key.toml"),
        BASELINE.replace("batch_size", "batchsize"),
    )
    .unwrap();
    fs::write(path.join("columns.csv"), "Id,Label\na,0\n").unwrap();
    let labels = read(path, "data/labels.csv");
    let bad = format!("{}{}\n", labels, "extra,28");
    fs::write(path.join("class28.csv"), bad).unwrap();
    let baseline = format!("train --config baseline.toml {DATA}");
    assert_refused(
        path,
        &[
            (
                &format!("train --config key.toml {DATA} --out x"),
                &["key.toml", "batchsize"],
            ),
            (
                &format!("{baseline} --out x --set train.epoch=1"),
                &["epoch"],
            ),
            (
                &format!("{baseline} --out x --set nonsense"),
                &["nonsense", "table.key=value"],
            ),
            (
                &format!("{baseline} --out x --set train.batch_size=0"),
                &["train.batch_size"],
            ),
            (
                &format!("{baseline} --out x --set model.input_size=2"),
                &["model.input_size"],
            ),
            (&format!("{baseline} --out file"), &["file is a file"]),
            (
                &format!("{baseline} --out run"),
                &["already contains a run", "--resume"],
            ),
            (
                &format!("{baseline} --out run --resume --set train.epochs=9"),
                &["another config"],
            ),
            (
                &format!("{baseline} --out x --from data"),
                &["data is not a checkpoint"],
            ),
            (&format!("{baseline} --out x --device tpu"), &["tpu"]),
            (
                &format!(
                    "{baseline} --out x --set model.arch=resnet50 --set model.input_size=224 \
                     --set train.batch_size=100000"
                ),
                &[
                    "train.batch_size = 100000",
                    "GB are free",
                    "train.accumulate",
                ],
            ),
            (
                "train --config baseline.toml --images data/images --labels columns.csv --out x",
                &["columns.csv", "Target", "Label"],
            ),
            (
                "train --config baseline.toml --images data/images --labels class28.csv --out x",
                &["class28.csv", "28", "0"],
            ),
            (
                &format!(
                    "retrain --from run --config baseline.toml {DATA} --set model.arch=resnet50 --set model.input_size=64 --out x"
                ),
                &["holds baseline", "resnet50"],
            ),
            (
                "export --from data --out x.onnx",
                &["data is not a checkpoint"],
            ),
            ("inspect data/labels.csv", &["labels.csv"]),
        ],
    );
    // A flipped byte in a checkpoint is detected.
    let weights = path.join("run/checkpoints/best/weights.bpk");
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).unwrap();
    assert_refused(
        path,
        &[(
            "export --from run --out x.onnx",
            &["weights.bpk is damaged"],
        )],
    );
}

#[test]
fn gradient_checkpointing_is_bit_identical() {
    let dir = workplace(16, "0,25");
    let train = format!(
        "train --config baseline.toml {DATA} --set model.arch=plain --set train.steps_per_epoch=2"
    );
    must(dir.path(), &format!("{train} --out kept"));
    let again = format!("{train} --set train.gradient_checkpointing=true --out again");
    must(dir.path(), &again);
    assert_same(dir.path(), "kept", "again");
}

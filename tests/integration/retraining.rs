//! Weights that `retrain` and `train --from` keep from the starting network.

use std::fs;

use rgby::model::{Arch, random_export};

use crate::support::{assert_refused, must, read, records, run, write_model};
use crate::train_support::{DATA, exported_weights, workplace};

#[test]
fn retraining_keeps_or_replaces_the_head() {
    let dir = workplace(16, "0,25");
    let path = dir.path();
    let train = format!("--config baseline.toml {DATA}");
    must(path, &format!("train {train} --out first"));
    let adam = "--set optimizer.name=adam --set optimizer.lr=1e-4 --set train.epochs=1";
    let kept = must(
        path,
        &format!("retrain --from first {train} {adam} --out second"),
    );
    assert!(kept.stderr.contains("its head kept"), "{}", kept.stderr);
    let wider = "--set model.hidden=[32,16]";
    let replaced = must(
        path,
        &format!("retrain --from first {train} {adam} {wider} --out third"),
    );
    assert!(
        replaced.stderr.contains("its head replaced"),
        "{}",
        replaced.stderr
    );
    let refused = run(
        path,
        &format!("retrain --head keep --from first {train} {wider} --out x"),
    );
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("model.hidden"),
        "{}",
        refused.stderr
    );
    let loss = |run: &str| -> f64 {
        records(path, &format!("{run}/metrics.csv"))[0][1]
            .parse()
            .unwrap()
    };
    // A kept head starts with trained weights, a new one with random weights.
    assert!(
        loss("second") < loss("third"),
        "{} {}",
        loss("second"),
        loss("third")
    );
}

#[test]
fn longer_head_keeps_the_shared_layers() {
    let dir = workplace(16, "0,25");
    let path = dir.path();
    let train = format!("--config baseline.toml --set train.epochs=1 {DATA}");
    must(path, &format!("train {train} --out first"));
    let frozen = "--set optimizer.name=adam --set optimizer.lr=0";
    let longer = "--set model.hidden=[64,32] --set model.hidden_dropout=[0,0.25]";
    let shown = must(
        path,
        &format!("retrain --head prefix --from first {train} {frozen} {longer} --out second"),
    );
    assert!(
        shown.stderr.contains("kept up to the first layer"),
        "{}",
        shown.stderr
    );
    let (before, after) = (
        exported_weights(path, "first/checkpoints/last"),
        exported_weights(path, "second/checkpoints/last"),
    );
    let kept: Vec<&str> = after
        .iter()
        .filter(|weight| before.contains(weight))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(
        kept,
        [
            "backbone.conv1.weight",
            "backbone.conv2.weight",
            "head.hidden.0.weight"
        ]
    );
}

#[test]
fn training_from_a_pretrained_file_equals_training_after_convert() {
    let dir = workplace(4, "0,25");
    let path = dir.path();
    let export = random_export(Arch::ResNet50, 3).unwrap();
    write_model(&path.join("pretrained.onnx"), &export);
    must(path, "convert --onnx pretrained.onnx --out initial");
    let resnet = "--set model.arch=resnet50 --set model.input_size=32 --set train.epochs=1";
    let train = format!("--config baseline.toml {resnet} {DATA}");
    must(
        path,
        &format!("train {train} --from initial --out by-convert"),
    );
    let direct = must(
        path,
        &format!("train {train} --from pretrained.onnx --out direct"),
    );
    for text in [
        "pretrained network",
        "yellow from zero",
        "its head replaced",
    ] {
        assert!(direct.stderr.contains(text), "{text}: {}", direct.stderr);
    }
    for name in ["metrics.csv", "checkpoints/last/weights.bpk"] {
        let bytes = |run: &str| fs::read(path.join(run).join(name)).unwrap();
        assert!(bytes("direct") == bytes("by-convert"), "{name} differs");
    }
    assert_eq!(
        read(path, "direct/config.toml"),
        read(path, "by-convert/config.toml")
    );
    let densenet = train.replace("resnet50", "densenet121");
    assert_refused(
        path,
        &[
            (
                &format!("train {densenet} --from pretrained.onnx --out x"),
                &["pretrained.onnx holds resnet50", "model.arch"],
            ),
            (
                &format!("train {train} --from nowhere --out x"),
                &["nowhere does not exist", "rgby convert"],
            ),
            (
                &format!("retrain {train} --from pretrained.onnx --head keep --out x"),
                &["pretrained.onnx", "leave out --head"],
            ),
        ],
    );
}

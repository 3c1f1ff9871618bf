//! What a retrained network keeps of the one that it starts from.

use std::path::Path;

use crate::support::{records, run};
use crate::training::{DATA, must, workplace};

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
    // A kept head goes on from where it was; a new one starts over.
    assert!(
        loss("second") < loss("third"),
        "{} {}",
        loss("second"),
        loss("third")
    );
}

#[test]
fn a_longer_head_keeps_the_layers_that_it_shares() {
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
    assert!(shown.stderr.contains("kept as far as"), "{}", shown.stderr);
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

/// Names and bytes of a checkpoint's weights, sorted, by way of an export.
pub fn exported_weights(path: &Path, checkpoint: &str) -> Vec<(String, Vec<u8>)> {
    must(
        path,
        &format!("export -q --engine tract --from {checkpoint} --out weights.onnx"),
    );
    let model = rgby::graph::read(&path.join("weights.onnx")).unwrap();
    let tensors = model.graph.initializer.clone();
    let mut weights: Vec<(String, Vec<u8>)> = tensors
        .into_iter()
        .filter(|tensor| tensor.name.ends_with(".weight"))
        .map(|tensor| (tensor.name.clone(), tensor.raw_data.to_vec()))
        .collect();
    weights.sort();
    weights
}

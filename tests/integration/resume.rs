//! Resumed runs are bit-identical to uninterrupted ones, and equal runs write equal files.

use std::fs;

use crate::support::{listing, must, read, records, run_on_full_disk};
use crate::train_support::{DATA, assert_same, evaluate, exported_weights, stop_early, workplace};

#[test]
fn resumes_bit_identically() {
    let dir = workplace(48, "0,25");
    let path = dir.path();
    let dropout = "--set model.dropout=0.25 --set model.hidden_dropout=0.5";
    for (arch, size, epochs) in [("baseline", 32, 3), ("resnet50", 32, 2)] {
        let train = format!(
            "train --config baseline.toml --set model.arch={arch} --set model.input_size={size} \
             --set train.epochs={epochs} {dropout} --set data.split=random:0.25 {DATA}"
        );
        let (whole, parts) = (format!("whole-{arch}"), format!("parts-{arch}"));
        must(path, &format!("{train} --out {whole}"));
        stop_early(path, &format!("{train} --out {parts}"), &parts);
        must(path, &format!("{train} --out {parts} --resume"));
        assert_same(path, &whole, &parts);
    }
}

#[test]
fn resumes_augmented_balanced_runs_and_reuses_their_split() {
    let dir = workplace(48, "0,7,25");
    let path = dir.path();
    let train = format!(
        "train --config baseline.toml {DATA} --set train.epochs=3 --set train.steps_per_epoch=4 \
         --set model.channels=['red/2+yellow/2','green','0.5*blue+green*0.5'] \
         --set data.sampler=balanced --set data.balance_threshold=0.9 \
         --set data.augment.dihedral=true --set data.augment.crop=0.8 \
         --set data.augment.intensity=0.2 --set data.resize=skimage"
    );
    let stratified = format!("{train} --set data.split=stratified:2/4");
    must(path, &format!("{stratified} --out whole"));
    stop_early(path, &format!("{stratified} --out parts"), "parts");
    must(path, &format!("{stratified} --out parts --resume"));
    assert_same(path, "whole", "parts");
    let split = read(path, "whole/split.csv");
    // Stratification balances the classes, so the sizes of the folds are only about equal.
    let held_out = split.matches(",valid").count();
    assert!((9..=15).contains(&held_out), "{split}");
    let again = format!("{train} --set data.split=file:whole/split.csv --out again");
    must(path, &again);
    assert_eq!(read(path, "again/split.csv"), split);
    assert_eq!(
        records(path, "again/metrics.csv")[2][..7],
        records(path, "whole/metrics.csv")[2][..7]
    );
    must(
        path,
        "export -q --engine tract --from whole --out whole.onnx",
    );
    // Evaluation computes sums of stains from the same files as training.
    assert!(evaluate(path, "whole.onnx", "data")["macro_f1"].is_number());
}

#[test]
fn equal_runs_write_equal_files() {
    let dir = workplace(16, "0,25");
    let path = dir.path();
    let head = "--set model.input_norm=true --set model.hidden_dropout=0.5";
    let train = format!("train --config baseline.toml {head} {DATA}");
    let files = |run: &str| {
        must(path, &format!("{train} --out {run}"));
        let last = path.join(run).join("checkpoints/last");
        ["weights.bpk", "optimizer.bpk"].map(|file| fs::read(last.join(file)).unwrap())
    };
    let (first, second) = (files("first"), files("second"));
    assert!(first[0] == second[0], "the weights differ");
    assert!(first[1] == second[1], "the optimizer's state differs");
}

#[test]
fn stages_freeze_and_resume() {
    let dir = workplace(32, "0,25");
    let path = dir.path();
    let train = format!(
        "--config baseline.toml {DATA} --set data.split=random:0.25 --set optimizer.name=adam \
         --set optimizer.lr=1e-3"
    );
    must(
        path,
        &format!("train {train} --set train.epochs=1 --out first"),
    );
    let staged = format!(
        "retrain --from first {train} --set train.epochs=4 --set train.keep_top=4 --set \
         train.stages=[{{epochs=2,freeze=['backbone'],lr=1e-2}},{{epochs=2,freeze=[],lr=1e-4}}]"
    );
    let shown = must(path, &format!("{staged} --out whole"));
    for line in [
        "epochs 1 to 2: backbone frozen, learning rate 0.01",
        "epochs 3 to 4: nothing frozen, learning rate 0.0001",
    ] {
        assert!(shown.stderr.contains(line), "{line}: {}", shown.stderr);
    }
    let weights = |checkpoint: &str, part: &str| -> Vec<(String, Vec<u8>)> {
        let mut weights = exported_weights(path, checkpoint);
        weights.retain(|(name, _)| name.starts_with(part));
        weights
    };
    let epoch = |number: u32| format!("whole/checkpoints/epoch-{number}");
    let before = weights("first/checkpoints/last", "backbone");
    assert!(!before.is_empty());
    assert!(
        before == weights(&epoch(2), "backbone"),
        "a frozen weight changed"
    );
    assert!(
        before != weights(&epoch(3), "backbone"),
        "no weight changed"
    );
    assert!(weights(&epoch(1), "head") != weights(&epoch(2), "head"));
    // The learning rates are those of the stages.
    let rows = records(path, "whole/metrics.csv");
    let rates: Vec<f64> = rows.iter().map(|row| row[7].parse().unwrap()).collect();
    assert_eq!(rates, [1e-2, 1e-2, 1e-4, 1e-4]);

    stop_early(path, &format!("{staged} --out parts"), "parts");
    must(path, &format!("{staged} --out parts --resume"));
    assert_same(path, "whole", "parts");
}

#[test]
#[cfg(unix)]
fn full_disk_keeps_the_last_checkpoint() {
    let dir = workplace(32, "0,25");
    let path = dir.path();
    let train = format!("train --config baseline.toml {DATA} --set train.epochs=3");
    must(path, &format!("{train} --out whole"));
    stop_early(path, &format!("{train} --out parts"), "parts");
    let last = path.join("parts/checkpoints/last");
    let before = listing(&path.join("parts/checkpoints"));
    let description = fs::read(last.join("checkpoint.json")).unwrap();
    let full = run_on_full_disk(path, 40, &format!("{train} --out parts --resume"));
    assert_eq!(full.code, Some(2), "{full:?}");
    for part in ["parts/checkpoints/", "weights.bpk", "--resume"] {
        assert!(full.stderr.contains(part), "{part}: {full:?}");
    }
    assert_eq!(listing(&path.join("parts/checkpoints")), before);
    assert_eq!(fs::read(last.join("checkpoint.json")).unwrap(), description);
    must(path, &format!("{train} --out parts --resume"));
    assert_same(path, "whole", "parts");
}

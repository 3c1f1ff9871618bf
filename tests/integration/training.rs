//! Training through the program: it learns, resumes, hands over to export and refuses bad input.

use std::fs;
use std::path::Path;

use rgby::graph::Message;
use rgby::model::{Arch, random_export};

use crate::support::{
    Run, assert_refused, fold_batch_norms, ort_library, probabilities, read, records, run, skipped,
};

const BASELINE: &str = "\
[model]
arch = \"baseline\"
input_size = 32
hidden = [64]

[train]
epochs = 2
batch_size = 16

[optimizer]
name = \"adadelta\"

[data]
split = \"none\"
";

/// Runs the program and expects success.
fn must(dir: &Path, args: &str) -> Run {
    let result = run(dir, args);
    assert_eq!(result.code, Some(0), "rgby {args}: {}", result.stderr);
    result
}

/// A folder with a synthetic data set in `data` and a baseline config.
fn workplace(count: usize, classes: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    must(
        dir.path(),
        &format!("synth --out data --count {count} --size 64 --classes {classes}"),
    );
    fs::write(dir.path().join("baseline.toml"), BASELINE).unwrap();
    dir
}

const DATA: &str = "--images data/images --labels data/labels.csv";

/// The judgement of a model on a data set, at a threshold of 0.3.
fn judge(dir: &Path, model: &str, data: &str) -> serde_json::Value {
    let args = format!(
        "eval --json --engine tract --threshold 0.3 --model {model} --images {data}/images \
         --labels {data}/labels.csv"
    );
    serde_json::from_str(&must(dir, &args).stdout).unwrap()
}

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
    let f1 = &judge(path, "model.onnx", "data")["macro_f1_present"];
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
fn resnet50_beats_guessing_after_a_few_epochs() {
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
    let report = judge(path, "model.onnx", "test");
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let (f1, guess) = (
        number(&report["macro_f1"]),
        number(&report["chance"]["class_frequency"]),
    );
    // Predicting nothing at all has an F1 of 0.
    assert!(
        f1 > 0.0 && f1 > 1.1 * guess,
        "macro-F1 {f1}, by class frequency {guess}"
    );
}

#[test]
fn a_folded_file_is_measured_before_training_and_a_model_file_retrains() {
    let dir = workplace(16, "0,14");
    let path = dir.path();
    let mut export = random_export(Arch::ResNet50, 2).unwrap();
    fold_batch_norms(&mut export);
    fs::write(path.join("folded.onnx"), export.write_to_bytes().unwrap()).unwrap();
    let converted = must(path, "convert --onnx folded.onnx --out initial");
    let said = "unfolded  53 BatchNorm layers";
    assert!(converted.stderr.contains(said), "{converted:?}");
    let config = "--config baseline.toml --set model.arch=resnet50 --set model.hidden=[] \
                  --set train.epochs=1 --set train.batch_size=8";
    let run = must(
        path,
        &format!("train --from initial {config} {DATA} --out run"),
    );
    // All of them, since there are fewer than would be measured.
    let measured = "measuring BatchNorm statistics on 16 samples";
    assert!(run.stderr.contains(measured), "{run:?}");
    assert!(read(path, "run/log.txt").contains("53 BatchNorm layers now have"));
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
    // A pretrained file has no head, channels or classes of ours: that is what convert is for.
    assert_refused(
        path,
        &[(
            &format!("retrain --from folded.onnx {config} {DATA} --out no"),
            &["folded.onnx", "rgby convert"],
        )],
    );
}

fn convert_random_resnet(path: &Path) {
    let bytes = random_export(Arch::ResNet50, 1)
        .unwrap()
        .write_to_bytes()
        .unwrap();
    fs::write(path.join("source.onnx"), bytes).unwrap();
    must(
        path,
        "convert --arch resnet50 --onnx source.onnx --out initial",
    );
}

#[test]
fn the_demo_ends_above_chance() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let shown = must(path, "demo --out demo");
    assert!(shown.stdout.contains("macro-F1"), "{}", shown.stdout);
    let report = judge(path, "demo/model.onnx", "demo/test");
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let (f1, chance) = (
        number(&report["macro_f1"]),
        number(&report["chance"]["best"]),
    );
    assert!(f1 > 1.2 * chance, "macro-F1 {f1}, chance {chance}");
}

#[test]
fn a_stopped_run_goes_on_as_if_it_had_not_stopped() {
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
        assert_same_run(path, &whole, &parts);
    }
}

#[test]
fn varied_balanced_runs_resume_and_their_splits_are_used_again() {
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
    assert_same_run(path, "whole", "parts");
    let split = read(path, "whole/split.csv");
    // Stratification evens out the classes; the folds' sizes follow only nearly.
    let held_out = split.matches(",valid").count();
    assert!((9..=15).contains(&held_out), "{split}");
    let again = format!("{train} --set data.split=file:whole/split.csv --out again");
    must(path, &again);
    assert_eq!(read(path, "again/split.csv"), split);
    assert_eq!(
        records(path, "again/metrics.csv")[2][..7],
        records(path, "whole/metrics.csv")[2][..7]
    );
    // Sums of stains are made of the same files in judging as in training.
    assert!(judge(path, "whole.onnx", "data")["macro_f1"].is_number());
}

/// Starts a run and sends SIGTERM once it has a checkpoint, between two steps.
fn stop_early(path: &Path, args: &str, run: &str) {
    let mut child = crate::support::rgby()
        .args(args.split_whitespace())
        .current_dir(path)
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let manifest = path.join(run).join("checkpoints/last/checkpoint.json");
    while !manifest.exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    std::process::Command::new("kill")
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

/// The runs took the same steps to the same losses and, bit for bit, the same weights.
fn assert_same_run(path: &Path, whole: &str, parts: &str) {
    // All but the columns of speed and time.
    let losses = |run: &str| -> Vec<Vec<String>> {
        let rows = records(path, &format!("{run}/metrics.csv"));
        rows.into_iter().map(|row| row[..7].to_vec()).collect()
    };
    assert_eq!(losses(whole), losses(parts));
    let exported = |run: &str| {
        must(
            path,
            &format!("export -q --engine tract --from {run}/checkpoints/last --out {run}.onnx"),
        );
        fs::read(path.join(format!("{run}.onnx"))).unwrap()
    };
    assert!(exported(whole) == exported(parts), "the weights differ");
}

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
    let weights = |run: &str| {
        must(
            path,
            &format!("export -q --engine tract --from {run}/checkpoints/last --out {run}.onnx"),
        );
        let model = rgby::graph::read(&path.join(format!("{run}.onnx"))).unwrap();
        let tensors = model.graph.initializer.clone();
        let mut weights: Vec<(String, Vec<u8>)> = tensors
            .into_iter()
            .filter(|tensor| tensor.name.ends_with(".weight"))
            .map(|tensor| (tensor.name.clone(), tensor.raw_data.to_vec()))
            .collect();
        weights.sort();
        weights
    };
    let (before, after) = (weights("first"), weights("second"));
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
fn engines_and_burn_agree() {
    let dir = workplace(6, "0,7,25");
    let path = dir.path();
    convert_random_resnet(path);
    let difference = |engine: &str| -> f64 {
        // The export compares the engine with Burn and would fail past 1e-4.
        let report = must(
            path,
            &format!("export --json {engine} --from initial --out model.onnx"),
        );
        let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
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
fn bad_input_is_refused_by_name() {
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
                &["holds a run", "--resume"],
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
    // A flipped byte in a checkpoint is noticed.
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

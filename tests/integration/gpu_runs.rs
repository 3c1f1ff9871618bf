//! Training runs on a GPU, where several losses are read at once.

use std::path::Path;

use serde_json::Value;

use crate::devices::{gpu, gpu_name};
#[cfg(feature = "torch")]
use crate::support::records;
use crate::support::{finish, json, must, rgby};
use crate::train_support::{DATA, assert_same, stop_early, workplace};

/// Returns the arguments of a baseline training with two epochs of 40 steps on tiny images.
fn train() -> String {
    format!(
        "train --config baseline.toml {DATA} --set model.input_size=16 --set train.batch_size=4 \
         --set train.steps_per_epoch=40 --set data.split=random:0.25"
    )
}

/// Returns the number of steps in a run's last checkpoint.
fn steps(dir: &Path, run: &str) -> Value {
    let inspected = json(dir, &format!("inspect --json {run}/checkpoints/last"));
    inspected["progress"]["steps"].clone()
}

#[test]
fn stopped_gpu_run_resumes_bit_identically() {
    if gpu().is_none() {
        return;
    }
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let train = format!(
        "{} --device {} --set model.dropout=0.25",
        train(),
        gpu_name()
    );
    must(path, &format!("{train} --out whole"));
    assert_eq!(steps(path, "whole"), 80);
    stop_early(path, &format!("{train} --out parts"), "parts");
    must(path, &format!("{train} --out parts --resume"));
    assert_same(path, "whole", "parts");
}

#[test]
fn first_non_finite_step_is_reported_and_not_saved() {
    if gpu().is_none() {
        return;
    }
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let place = |device: &str, extra: &[&str]| {
        let out = format!("{device}-{}", extra.len());
        let args = format!(
            "{} --set optimizer.lr=1e30 --device {device} --out {out}",
            train()
        );
        let mut command = rgby();
        command.args(args.split_whitespace()).args(extra);
        let ended = finish(command.current_dir(path));
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let (_, error) = ended.stderr.split_once("the loss became ").unwrap();
        let (_, place) = error.split_once(" at ").unwrap();
        (place.to_owned(), steps(path, &out))
    };
    let (cpu, saved) = place("cpu", &[]);
    assert!(cpu.starts_with("epoch 1, step 2 "), "{cpu}");
    assert_eq!(saved, 0);
    assert_eq!(place(&gpu_name(), &[]), (cpu.clone(), 0.into()));
    let often = ["--checkpoint-every", "1 step"];
    assert_eq!(place(&gpu_name(), &often), (cpu, 1.into()));
}

/// Returns the training losses of a run, by epoch.
#[cfg(feature = "torch")]
fn losses(dir: &Path, run: &str) -> Vec<f64> {
    let rows = records(dir, &format!("{run}/metrics.csv"));
    rows.iter().map(|row| row[1].parse().unwrap()).collect()
}

/// bfloat16 has 8 significant bits; the losses show that it is used, and that training still works.
#[cfg(feature = "torch")]
#[test]
fn bfloat16_trains_on_libtorch_nearly_like_float32() {
    if !gpu_name().starts_with("torch") || gpu().is_none() {
        return;
    }
    let dir = workplace(24, "0,25");
    let path = dir.path();
    let train = |precision: &str| {
        let settings = "--set optimizer.lr=0.1 --set train.deterministic=true";
        let device = gpu_name();
        must(
            path,
            &format!(
                "{} {settings} --device {device} --set train.precision={precision} --out {precision}",
                train()
            ),
        );
        losses(path, precision)
    };
    let (exact, allowed, rounded) = (train("fp32"), train("tf32"), train("bf16"));
    if gpu_name() == "torch:cpu" {
        assert_eq!(exact, allowed);
    }
    assert_ne!(exact, rounded);
    for (exact, rounded) in exact.iter().zip(&rounded) {
        let apart = (exact - rounded).abs() / exact;
        assert!(apart < 0.05, "{rounded} instead of {exact}");
    }
}

//! Helpers for the tests of training: a data set, a config, and runs that are stopped and compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{json, listing, must, read, signal, spawn};

/// The flags for the data set of [`workplace`].
pub const DATA: &str = "--images data/images --labels data/labels.csv";

/// `baseline.toml` of [`workplace`].
pub const BASELINE: &str = "\
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

/// Creates a folder with a synthetic data set in `data` and a baseline config.
pub fn workplace(count: usize, classes: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    must(
        dir.path(),
        &format!("synth --out data --count {count} --size 64 --classes {classes}"),
    );
    fs::write(dir.path().join("baseline.toml"), BASELINE).unwrap();
    dir
}

/// Evaluates a model on a data set at threshold 0.3.
pub fn evaluate(dir: &Path, model: &str, data: &str) -> Value {
    let args = format!(
        "eval --json --engine tract --threshold 0.3 --model {model} --images {data}/images \
         --labels {data}/labels.csv"
    );
    json(dir, &args)
}

/// Starts a run and sends SIGTERM once it has a checkpoint, between two steps.
pub fn stop_early(path: &Path, args: &str, run: &str) {
    let mut child = spawn(path, args);
    let manifest = path.join(run).join("checkpoints/last/checkpoint.json");
    while !manifest.exists() && child.try_wait().unwrap().is_none() {
        sleep(Duration::from_millis(5));
    }
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

/// Asserts that metrics and weights of two runs are bit-identical.
pub fn assert_same(dir: &Path, whole: &str, parts: &str) {
    let metrics = |run: &str| read(dir, &format!("{run}/metrics.csv"));
    assert_eq!(metrics(whole), metrics(parts));
    for checkpoint in ["best", "last"] {
        let folder = |run: &str| dir.join(run).join("checkpoints").join(checkpoint);
        let names = |run: &str| -> Vec<String> {
            let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().into();
            listing(&folder(run)).iter().map(name).collect()
        };
        assert_eq!(names(whole), names(parts));
        // All files except the metadata, which contain the duration.
        let tensors = |name: &&String| !name.starts_with("checkpoint.");
        for name in names(whole).iter().filter(tensors) {
            let bytes = |run: &str| fs::read(folder(run).join(name)).unwrap();
            assert!(bytes(whole) == bytes(parts), "{checkpoint}/{name} differs");
        }
    }
}

/// Returns names and bytes of a checkpoint's weights, sorted, from an exported model.
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

//! The event files of a run, read back with `TensorBoard`'s own library (`tests/clients`).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use rgby::report::{EpochRow, EventFile, TimingRow};
use serde_json::Value;

use crate::support::{must, records, skipped, spawn};

/// Returns the scalars in a folder of event files; `None` if `TensorBoard` is not installed.
fn scalars(dir: &Path) -> Option<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/tensorboard_scalars.py");
    let output = Command::new("python3").arg(script).arg(dir).output();
    let output = match output {
        Ok(output) if output.status.code() != Some(3) => output,
        missing => {
            skipped(format!(
                "TensorBoard's library is not available: {missing:?}"
            ));
            return None;
        }
    };
    assert!(output.status.success(), "{output:?}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn epoch(epoch: u32, train_loss: f64) -> (EpochRow, TimingRow) {
    let row = EpochRow {
        epoch,
        train_loss,
        valid_loss: (epoch > 1).then_some(0.5),
        f1_mean: 0.25,
        f1_std: 0.0,
        f1_min: 0.0,
        f1_max: 1.0,
        lr: 0.125,
    };
    let timing = TimingRow {
        epoch,
        seconds: 2.0,
        images_per_s: 64.0,
        waited: 0.0,
    };
    (row, timing)
}

fn write(dir: &Path, first: u32, losses: &[f64]) {
    let mut events = EventFile::create(dir, first).unwrap();
    for (number, &loss) in (first..).zip(losses) {
        let (row, timing) = epoch(number, loss);
        events.add(&row, &timing).unwrap();
    }
}

#[test]
fn resumed_epochs_replace_lost_ones_and_a_truncated_record_is_skipped() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 1, &[8.0, 4.0, 3.0]);
    let first = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
    let bytes = fs::read(first.path()).unwrap();
    fs::write(first.path(), &bytes[..bytes.len() - 9]).unwrap();
    write(dir.path(), 2, &[2.0, 1.0, 0.5]);
    let Some(scalars) = scalars(dir.path()) else {
        return;
    };
    let losses = serde_json::json!([[1, 8.0], [2, 2.0], [3, 1.0], [4, 0.5]]);
    assert_eq!(scalars["loss/train"], losses);
    let validation = serde_json::json!([[2, 0.5], [3, 0.5], [4, 0.5]]);
    assert_eq!(scalars["loss/validation"], validation);
}

const CONFIG: &str = "\
[model]
arch = \"baseline\"
input_size = 32
[train]
epochs = 12
batch_size = 8
[optimizer]
name = \"adam\"
schedule = \"cosine\"
[data]
split = \"random:0.25\"
";

#[test]
#[cfg(unix)]
fn killed_and_resumed_run_is_one_curve() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let synth = "synth --out data --count 32 --size 32 --classes 0,25";
    must(path, synth);
    fs::write(path.join("run.toml"), CONFIG).unwrap();
    let args =
        "train --config run.toml --images data/images --labels data/labels.csv --out run --quiet";
    let mut child = spawn(path, args);
    while !path.join("run/plots/loss.svg").exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "the run ended too early"
        );
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    must(path, &format!("{args} --resume"));
    let folder = path.join("run/tensorboard");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    let Some(scalars) = scalars(&folder) else {
        return;
    };
    let tags = [
        (1, "loss/train"),
        (2, "loss/validation"),
        (3, "f1/mean"),
        (4, "f1/std"),
        (5, "f1/min"),
        (6, "f1/max"),
        (7, "learning_rate"),
    ];
    let metrics = records(path, "run/metrics.csv");
    for (column, tag) in tags {
        compare(&metrics, column, &scalars[tag]);
    }
    let tags = [
        (1, "time/seconds"),
        (2, "time/images_per_s"),
        (3, "time/waited"),
    ];
    let timing = records(path, "run/timing.csv");
    for (column, tag) in tags {
        compare(&timing, column, &scalars[tag]);
    }
}

/// Asserts that a curve equals a column of a table, rounded to float32.
fn compare(records: &[Vec<String>], column: usize, curve: &Value) {
    // As float64 first: decimal digits next to the middle of two float32 values round differently.
    let value = |text: &str| text.parse::<f64>().unwrap() as f32;
    let expected: Vec<(u64, f32)> = records
        .iter()
        .map(|row| (row[0].parse().unwrap(), value(&row[column])))
        .collect();
    let points = curve.as_array().unwrap().iter();
    let points: Vec<(u64, f32)> = points
        .map(|point| {
            (
                point[0].as_u64().unwrap(),
                point[1].as_f64().unwrap() as f32,
            )
        })
        .collect();
    assert_eq!(points.len(), 12, "column {column}");
    assert_eq!(points, expected, "column {column}");
}

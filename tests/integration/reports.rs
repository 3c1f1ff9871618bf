//! `report.html` of runs and evaluations: what is in it, and how a browser shows it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::resume::stop_early;
use crate::support::{read, records, run, skipped};
use crate::training::{DATA, must, workplace};

const TRAIN: &str = "train --config baseline.toml --set data.split=random:0.25";

/// The epochs in the page's table, the newest first.
fn epochs(dir: &Path, run: &str) -> Vec<u32> {
    let page = read(dir, &format!("{run}/report.html"));
    let rows = page.split("<tr").skip(2);
    let epoch = |row: &str| {
        let cell = row.split("<th>").nth(1).unwrap();
        cell.split(['<', ' ']).next().unwrap().parse().unwrap()
    };
    rows.map(epoch).collect()
}

#[test]
fn a_resumed_run_has_the_whole_runs_page() {
    let dir = workplace(48, "0,25");
    let path = dir.path();
    must(
        path,
        &format!("{TRAIN} {DATA} --set train.epochs=1 --out first"),
    );
    assert_eq!(epochs(path, "first"), [1]);
    let retrain =
        format!("re{TRAIN} {DATA} --set train.epochs=4 --from first --head replace --out second");
    stop_early(path, &retrain, "second");
    let stopped = read(path, "second/report.html");
    assert!(stopped.contains("; stopped, rgby train --resume goes on"));
    must(path, &format!("{retrain} --resume"));
    assert_eq!(epochs(path, "second"), [4, 3, 2, 1]);
    let page = read(path, "second/report.html");
    let best = records(path, "second/metrics.csv")
        .into_iter()
        .min_by(|a, b| {
            let [a, b]: [f64; 2] = [a, b].map(|row| row[2].parse().unwrap());
            a.total_cmp(&b)
        })
        .unwrap();
    for part in [
        "Training of second",
        "4 of 4 epochs, finished",
        "first/checkpoints/best",
        "replaced by a new one",
        "data/labels.csv",
        "48: 36 train, 12 validate",
        "<dd>cpu</dd>",
        "arch = &quot;baseline&quot;",
        &format!("best: {}", best[0]),
    ] {
        assert!(page.contains(part), "{part}");
    }
    for chart in ["loss", "f1", "learning_rate", "throughput", "data_wait"] {
        assert!(read(path, &format!("second/plots/{chart}.svg")).contains("</svg>"));
    }
}

#[test]
fn stages_and_a_missing_validation_are_said() {
    let dir = workplace(16, "0,25");
    let path = dir.path();
    let config = read(path, "baseline.toml").replace(
        "epochs = 2",
        "epochs = 3\nstages = [{ epochs = 1, freeze = [\"backbone\"], lr = 0.5 }]",
    );
    fs::write(path.join("staged.toml"), config).unwrap();
    must(
        path,
        &format!("train --config staged.toml {DATA} --out run"),
    );
    let page = read(path, "run/report.html");
    for part in [
        "from epoch 1",
        "backbone frozen, learning rate 0.5",
        "from epoch 2",
        "nothing frozen",
        "There is no validation split",
        "random weights",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(epochs(path, "run"), [3, 2, 1]);
    fs::write(path.join("run/run.json"), "{").unwrap();
    let resumed = run(
        path,
        &format!("train --config staged.toml {DATA} --out run --resume"),
    );
    assert_eq!(resumed.code, Some(2), "{resumed:?}");
    assert!(resumed.stderr.contains("run.json"), "{resumed:?}");
}

#[test]
fn reports_look_right_in_chromium() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/reports.mjs");
    let check = Command::new("node").args([script, "--check"]).output();
    match check {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skipped(String::from_utf8_lossy(&output.stdout).trim()),
        Err(_) => return skipped("Node.js is not installed, which drives Chromium"),
    }
    let dir = workplace(64, "0,7,21,25");
    let path = dir.path();
    must(
        path,
        &format!("{TRAIN} {DATA} --set train.epochs=12 --out a-run-with-a-very-long-name"),
    );
    must(
        path,
        &format!("train --config baseline.toml {DATA} --set train.epochs=1 --out short"),
    );
    must(
        path,
        &format!("eval --model a-run-with-a-very-long-name {DATA} --threshold 0.3 --out judged"),
    );
    assert!(read(path, "judged/report.html").contains("class=\"overlay\""));
    let files = ["a-run-with-a-very-long-name", "short", "judged"]
        .map(|folder| format!("{folder}/report.html"));
    let mut browser = Command::new("node");
    browser.arg(script).args(&files).current_dir(path);
    if let Some(shots) = std::env::var_os("RGBY_SHOTS") {
        browser.arg("--shots").arg(shots);
    }
    let output = browser.output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stdout}{stderr}");
    assert_eq!(stdout.matches(": ok").count(), 12, "{stdout}");
}

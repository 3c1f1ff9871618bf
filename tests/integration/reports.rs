//! `report.html` of runs and evaluations: its content, and its rendering in a browser.

use std::fs;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::RgbaImage;

use crate::serve_page::corner_model;
use crate::serve_support::browser_script;
use crate::support::{must, node, read, records, run, workplace_with_samples, write_model};
use crate::train_support::{DATA, stop_early, workplace};

const TRAIN: &str = "train --config baseline.toml --set data.split=random:0.25";

/// Returns the epochs in the table of the page, the newest first.
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
fn page_of_a_resumed_run_contains_all_epochs() {
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
    assert!(stopped.contains("; interrupted, continue with rgby train --resume"));
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
        "48: 36 training, 12 validation",
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
fn page_shows_stages_and_missing_validation() {
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

/// Returns the overlays of a report.
fn overlays(page: &str) -> Vec<RgbaImage> {
    const PREFIX: &str = "<img class=\"overlay\" alt=\"\" src=\"data:image/png;base64,";
    let images = page.split(PREFIX).skip(1);
    let decode = |rest: &str| {
        let png = BASE64_STANDARD
            .decode(rest.split('"').next().unwrap())
            .unwrap();
        image::load_from_memory(&png).unwrap().to_rgba8()
    };
    images.map(decode).collect()
}

/// `light` is a false positive of a model whose output depends on the top right corner, and a false
/// negative of its negation.
#[test]
fn overlays_show_the_cells_that_a_model_depends_on() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let mut model = corner_model();
    write_model(&path.join("corner.onnx"), &model);
    let graph = model.graph.as_mut().unwrap();
    graph.node.insert(1, node("Neg", &["corner"], "negative"));
    graph.node[2].input[0] = "negative".into();
    write_model(&path.join("negative.onnx"), &model);
    fs::write(path.join("labels.csv"), "Id,Target\nlight,0\ndark,0\n").unwrap();
    let eval = "eval --engine tract --images images --labels labels.csv --batch 10 --out out";
    // All classes have the same probability; the first is shown.
    for (model, caption) in [
        ("corner", "evidence for Nuclear membrane, at most 0.43"),
        ("negative", "evidence against Nucleoplasm, at most 0.43"),
    ] {
        must(path, &format!("{eval} --model {model}.onnx"));
        let page = read(path, "out/report.html");
        assert!(page.contains(caption), "{model}: {caption}");
        let overlay = &overlays(&page)[0];
        let (width, height) = overlay.dimensions();
        let alpha = |x: u32, y: u32| overlay.get_pixel(x, y).0[3];
        assert!(alpha(width - 1, 0) > 100);
        for (x, y) in [(0, 0), (width / 2, 0), (width - 1, height / 2)] {
            assert_eq!(alpha(x, y), 0, "{x} {y}");
        }
        // Hiding cells of a black image changes nothing.
        assert!(page.contains("in any single square"));
    }
    must(path, &format!("{eval} --model corner.onnx --no-overlays"));
    assert!(overlays(&read(path, "out/report.html")).is_empty());
    let score = "score --engine tract --model corner.onnx --images images --out o.csv";
    must(path, &format!("{score} --scores p.csv"));
    must(
        path,
        "eval --scores p.csv --labels labels.csv --images images --out out",
    );
    let page = read(path, "out/report.html");
    assert!(page.contains("Most wrong") && overlays(&page).is_empty());
}

#[test]
fn reports_render_in_chromium() {
    let Some(script) = browser_script("reports.mjs") else {
        return;
    };
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
        &format!("eval --model a-run-with-a-very-long-name {DATA} --threshold 0.3 --out report"),
    );
    // This model has occlusion maps.
    write_model(&path.join("corner.onnx"), &corner_model());
    must(
        path,
        &format!("eval --engine tract --model corner.onnx {DATA} --out corner"),
    );
    assert!(!overlays(&read(path, "corner/report.html")).is_empty());
    let files = ["a-run-with-a-very-long-name", "short", "report", "corner"]
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
    assert_eq!(stdout.matches(": ok").count(), 16, "{stdout}");
}

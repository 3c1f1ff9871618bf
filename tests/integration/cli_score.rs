//! `synth`, `score`, `eval` and `completions`, on good input and on bad.

use std::collections::BTreeMap;
use std::fs;
use std::io::pipe;
use std::path::Path;

use image::{GrayImage, ImageBuffer, ImageFormat, Luma};
use rgby::imaging::CHANNELS;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Run, listing, ort_library, probability, rgby, run, skipped, write_sample, write_tiny_model,
};

/// A folder with `model.onnx` and an empty folder `images`.
fn workplace() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    write_tiny_model(dir.path());
    dir
}

/// As [`workplace`], with three samples: `dark`, `light`, and `mixed`, whose red is light.
fn workplace_with_samples() -> TempDir {
    let dir = workplace();
    let images = dir.path().join("images");
    write_sample(&images, "dark", [10; 4]);
    write_sample(&images, "light", [240; 4]);
    write_sample(&images, "mixed", [240, 10, 10, 10]);
    dir
}

/// Runs `rgby score` on the workplace; tract is there on every machine.
fn score(dir: &Path, more: &str) -> Run {
    let args = "score --model model.onnx --images images --engine tract --out out.csv";
    run(dir, &format!("{args} {more}"))
}

fn read(dir: &Path, name: &str) -> String {
    fs::read_to_string(dir.join(name)).unwrap()
}

/// The records of a CSV file after its header.
fn records(dir: &Path, name: &str) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(dir.join(name)).unwrap();
    let record = |r: csv::StringRecord| r.iter().map(str::to_owned).collect();
    reader.records().map(|r| record(r.unwrap())).collect()
}

/// The probabilities of a scores file by id.
fn probabilities(dir: &Path, name: &str) -> BTreeMap<String, Vec<f32>> {
    let row = |r: &Vec<String>| r[1..].iter().map(|field| field.parse().unwrap()).collect();
    let scored = records(dir, name).into_iter().filter(|r| !r[1].is_empty());
    scored.map(|r| (r[0].clone(), row(&r))).collect()
}

/// Classes `0..27` but those of yellow (3, 7, …) only up to 23, as `light` is predicted: class 27
/// has a threshold that nothing reaches.
fn all_but_27() -> String {
    let classes: Vec<_> = (0..27).map(|class| class.to_string()).collect();
    classes.join(" ")
}

/// Fills `images` with samples that are readable in unusual ways, and with broken ones.
fn write_hostile_folder(images: &Path) {
    for id in ["cut", "jpeg", "plain", "short", "text"] {
        write_sample(images, id, [240; 4]);
    }
    let file = |id: &str, channel: &str| images.join(format!("{id}_{channel}.png"));
    let png = fs::read(file("cut", "green")).unwrap();
    fs::write(file("cut", "green"), &png[..png.len() / 2]).unwrap();
    fs::remove_file(file("short", "yellow")).unwrap();
    fs::write(file("text", "blue"), "this is no image\n").unwrap();
    for channel in CHANNELS {
        let small = GrayImage::from_pixel(16, 16, Luma([240]));
        small
            .save_with_format(file("jpeg", channel), ImageFormat::Jpeg)
            .unwrap();
        let deep = ImageBuffer::<Luma<u16>, Vec<u16>>::from_pixel(9, 9, Luma([240 * 257]));
        deep.save(file("deep", channel)).unwrap();
        let big = GrayImage::from_pixel(2048, 2048, Luma([240]));
        big.save(file("big", channel)).unwrap();
    }
}

#[test]
fn what_can_be_read_is_scored_and_the_rest_is_listed() {
    let dir = workplace();
    write_hostile_folder(&dir.path().join("images"));
    let run = score(dir.path(), "--scores p.csv --batch 3 --json");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.stderr.contains("engine: tract (embedded) on cpu"),
        "{run:?}"
    );
    assert!(run.stderr.contains("3 of 7 samples failed"), "{run:?}");
    assert!(run.stderr.contains("listed in out.errors.csv"), "{run:?}");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (&report["samples"], &report["failed"]),
        (&7.into(), &3.into())
    );
    assert_eq!(report["errors"], "out.errors.csv");

    let all = all_but_27();
    let wanted = format!(
        "Id,Predicted\nbig,{all}\ncut,\ndeep,{all}\njpeg,{all}\nplain,{all}\nshort,\ntext,\n"
    );
    assert_eq!(read(dir.path(), "out.csv"), wanted);
    let failed = records(dir.path(), "out.errors.csv");
    for (failure, (id, file, error)) in failed.iter().zip([
        ("cut", "cut_green.png", "truncated"),
        ("short", "short_yellow.png", "no file for channel yellow"),
        ("text", "text_blue.png", "not an image"),
    ]) {
        assert_eq!(failure[0], id);
        assert!(
            failure[1].ends_with(file) && failure[2].contains(error),
            "{failure:?}"
        );
    }
    assert_eq!(failed.len(), 3);

    let scores = probabilities(dir.path(), "p.csv");
    let ids: Vec<_> = scores.keys().collect();
    assert_eq!(ids, ["big", "deep", "jpeg", "plain"]);
    for row in scores.values() {
        assert_eq!(row.len(), 28);
        assert!(
            row.iter().all(|p| (p - probability(240)).abs() < 1e-5),
            "{row:?}"
        );
    }
}

#[test]
fn ids_decide_extent_and_order() {
    let dir = workplace_with_samples();
    fs::write(
        dir.path().join("ids.csv"),
        "Id,Predicted\nmixed,0\ndark,0\n",
    )
    .unwrap();
    fs::write(dir.path().join("out.errors.csv"), "of an earlier run").unwrap();
    let run = score(dir.path(), "--ids ids.csv");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(
        read(dir.path(), "out.csv"),
        "Id,Predicted\nmixed,0 4 8 12 16 20 24\ndark,\n"
    );
    assert!(!dir.path().join("out.errors.csv").exists());

    fs::write(dir.path().join("ids.csv"), "Id\nghost\ndark\n").unwrap();
    let run = score(dir.path(), "--ids ids.csv --quiet");
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(read(dir.path(), "out.csv"), "Id,Predicted\nghost,\ndark,\n");
    assert_eq!(records(dir.path(), "out.errors.csv")[0][0], "ghost");
    assert_eq!(run.stderr.lines().count(), 1, "{run:?}");
}

#[test]
fn a_threshold_stands_for_all_classes() {
    let dir = workplace_with_samples();
    let between = f32::midpoint(probability(10), probability(240));
    for (threshold, dark, light) in [(0.0, 28, 28), (between, 0, 28), (1.0, 0, 0)] {
        let run = score(dir.path(), &format!("--threshold {threshold}"));
        assert_eq!(run.code, Some(0), "{run:?}");
        let rows = records(dir.path(), "out.csv");
        let count = |row: &Vec<String>| row[1].split_whitespace().count();
        assert_eq!((count(&rows[0]), count(&rows[1])), (dark, light));
    }
}

#[test]
fn bad_input_is_fatal_named_and_writes_nothing() {
    let dir = workplace_with_samples();
    let place = |name: &str| dir.path().join(name);
    for folder in ["empty", "folder", "run", "folder/late.errors.csv"] {
        fs::create_dir(place(folder)).unwrap();
    }
    fs::write(place("text.onnx"), "not a model at all\n").unwrap();
    fs::write(place("labels.csv"), "Id,Target\ndark,0\nlight,3 28\n").unwrap();
    fs::write(place("columns.csv"), "Id,Predicted\ndark,0\n").unwrap();
    fs::write(place("ghosts.csv"), "Id,Target\nghost,0\n").unwrap();
    fs::write(place("good.csv"), "Id,Target\ndark,0\n").unwrap();
    fs::write(place("p.csv"), "Id,a,b\ndark,0.5,1.5\n").unwrap();
    let before = listing(dir.path());
    let score = "score --engine tract --images images";
    let model = "--model model.onnx";
    let eval = format!("eval --engine tract --images images {model} --out report");
    for (args, wanted) in [
        (
            format!("{score} {model} --out folder"),
            &["--out folder is a folder"][..],
        ),
        (
            format!("{score} {model} --out none/out.csv"),
            &["none; make it first"],
        ),
        (
            format!("{score} {model} --out out.parquet"),
            &["out.parquet", ".csv"],
        ),
        (
            format!("{score} {model} --out folder/late.csv"),
            &["late.errors.csv is a folder"],
        ),
        (
            format!("{score} {model} --out o.csv --scores ./o.csv"),
            &["--scores ./o.csv"],
        ),
        (
            format!("{score} {model} --out o.csv --scores empty"),
            &["--scores empty is a folder"],
        ),
        (
            format!("{score} {model} --out o.csv --ids none.csv"),
            &["none.csv"],
        ),
        (
            format!("{score} {model} --out o.csv --threshold 2"),
            &["--threshold", "from 0 to 1"],
        ),
        (
            format!("{score} {model} --out o.csv --batch 0"),
            &["--batch"],
        ),
        (
            format!("{score} {model} --out o.csv --device gpu"),
            &["`gpu` is no device"],
        ),
        (
            format!("{score} {model} --out o.csv --device cuda"),
            &["--device cuda:0 cannot be had"],
        ),
        (
            format!("{score} --model text.onnx --out o.csv"),
            &["text.onnx", "not an ONNX model"],
        ),
        (
            format!("{score} --model run --out o.csv"),
            &["rgby export --from run --out model.onnx"],
        ),
        (
            format!("{score} --model none.onnx --out o.csv"),
            &["none.onnx", "cannot be read"],
        ),
        (
            format!("score {model} --images empty --out o.csv"),
            &["empty", "no image files"],
        ),
        (
            format!("score {model} --images none --out o.csv"),
            &["none"],
        ),
        (
            format!("{eval} --labels labels.csv"),
            &["labels.csv", "line 3", "class 28"],
        ),
        (
            format!("{eval} --labels columns.csv"),
            &["columns.csv", "no column `Target`"],
        ),
        (
            format!("{eval} --labels ghosts.csv"),
            &["not one of the 1", "`ghost`"],
        ),
        (
            format!("{eval}/.. --labels good.csv --out p.csv"),
            &["cannot be used multiple times"],
        ),
        (
            "eval --scores p.csv --labels good.csv".into(),
            &["p.csv", "line 2", "`1.5`"],
        ),
        (
            "eval --scores p.csv --labels good.csv --out p.csv".into(),
            &["--out p.csv is a file"],
        ),
        (
            "eval --scores p.csv --labels good.csv --batch 2".into(),
            &["--scores", "--batch"],
        ),
        (
            "eval --scores p.csv --labels good.csv --threshold tuned".into(),
            &["give a number"],
        ),
        ("eval --labels good.csv".into(), &["--model"]),
        ("synth --out new --classes 3,28".into(), &["28"]),
        ("synth --out new --count 0".into(), &["`count` is 0"]),
        ("synth --out text.onnx".into(), &["text.onnx"]),
        ("frobnicate".into(), &["frobnicate"]),
    ] {
        let run = run(dir.path(), &args);
        assert_eq!(run.code, Some(2), "{args}: {run:?}");
        assert!(run.stdout.is_empty(), "{args}: {run:?}");
        assert_eq!(run.stderr.matches("error: ").count(), 1, "{args}: {run:?}");
        for part in wanted {
            assert!(run.stderr.contains(part), "{args}: no {part} in {run:?}");
        }
        assert_eq!(listing(dir.path()), before, "{args} left something behind");
    }
}

#[test]
fn a_model_is_judged_by_labels() {
    let dir = workplace_with_samples();
    // `light` shows all classes but 27; `mixed` shows red's, of which it has class 0.
    let light = all_but_27();
    fs::write(
        dir.path().join("labels.csv"),
        format!("Id,Target\nlight,{light}\nmixed,0\ndark,\n"),
    )
    .unwrap();
    let eval = "eval --engine tract --model model.onnx --images images --labels labels.csv";
    let run_json = run(dir.path(), &format!("{eval} --json --tune-thresholds"));
    assert_eq!(run_json.code, Some(0), "{run_json:?}");
    let json: Value = serde_json::from_str(&run_json.stdout).unwrap();
    // Of 28 classes, 21 are perfect, 6 have one false positive to one hit, class 27 is absent.
    let f1 = |key: &str| json[key].as_f64().unwrap();
    assert!(
        (f1("macro_f1") - (21.0 + 6.0 * 2.0 / 3.0) / 28.0).abs() < 1e-9,
        "{json}"
    );
    assert!(
        (f1("macro_f1_present") - 25.0 / 27.0).abs() < 1e-9,
        "{json}"
    );
    let class = &json["classes"][4];
    assert_eq!(
        (&class["name"], &class["support"]),
        (&"Nuclear speckles".into(), &1.into())
    );
    assert_eq!(class["false_positives"], 1);
    // Red's probabilities tie, so that no threshold tells `light` from `mixed`.
    assert_eq!(json["tuned"]["macro_f1"], json["macro_f1"]);

    let text = run(dir.path(), &format!("{eval} --out report"));
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        "macro-F1        0.8929",
        "chance",
        "Nuclear speckles",
        "27  Rods & rings",
    ] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    let written: Value = serde_json::from_str(&read(dir.path(), "report/metrics.json")).unwrap();
    assert_eq!(written["macro_f1"], json["macro_f1"]);
    assert!(read(dir.path(), "report/class_f1.svg").contains("<svg"));

    let run_score = score(dir.path(), "--scores p.csv");
    assert_eq!(run_score.code, Some(0), "{run_score:?}");
    let from_scores = run(dir.path(), "eval --scores p.csv --labels labels.csv --json");
    let from_scores: Value = serde_json::from_str(&from_scores.stdout).unwrap();
    assert_eq!(
        from_scores["mean_average_precision"],
        json["mean_average_precision"]
    );
    assert_eq!(from_scores["loss"], json["loss"]);
    // One threshold for all: class 27 is predicted at 0.5.
    assert_eq!(from_scores["classes"][27]["false_positives"], 1);
}

#[test]
fn what_cannot_be_judged_is_listed() {
    let dir = workplace_with_samples();
    let labels = "Id,Target\nlight,0\nghost,1\ndark,2\nmixed,0\n";
    fs::write(dir.path().join("labels.csv"), labels).unwrap();
    fs::write(dir.path().join("images/dark_red.png"), "").unwrap();
    let eval = "eval --engine tract --model model.onnx --images images --labels labels.csv";
    let listed = run(dir.path(), eval);
    assert_eq!(listed.code, Some(1), "{listed:?}");
    assert!(
        listed.stdout.contains("2 samples, 28 classes, 1 of them"),
        "{listed:?}"
    );
    assert!(
        listed.stderr.contains("2 of 4 labelled samples"),
        "{listed:?}"
    );
    assert!(
        listed.stderr.contains("ghost: there is no image file"),
        "{listed:?}"
    );
    assert!(
        listed.stderr.contains("dark_red.png: the file is empty"),
        "{listed:?}"
    );

    let filed = run(dir.path(), &format!("{eval} --out report"));
    assert_eq!(filed.code, Some(1), "{filed:?}");
    let failed = records(dir.path(), "report/errors.csv");
    assert_eq!([&failed[0][0], &failed[1][0]], ["ghost", "dark"]);

    let scores = "Id,a,b,c\nlight,0.9,0.1,0.1\ndark,,,\nmixed,0.2,0.9,0.1\nmore,1,1,1\n";
    fs::write(dir.path().join("p.csv"), scores).unwrap();
    let run = run(dir.path(), "eval --scores p.csv --labels labels.csv --json");
    assert_eq!(run.code, Some(1), "{run:?}");
    let json: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(json["samples"], 2);
    assert_eq!(json["failures"][0]["id"], "ghost");
    assert_eq!(json["failures"][1]["error"], "its line is empty");
}

#[test]
fn engines_agree() {
    let Some(library) = ort_library() else {
        skipped("no ONNX Runtime: neither ORT_DYLIB_PATH nor a Python package");
        return;
    };
    let dir = workplace_with_samples();
    let base = "score --model model.onnx --images images";
    let tract = run(
        dir.path(),
        &format!("{base} --engine tract --out t.csv --scores tp.csv"),
    );
    assert_eq!(tract.code, Some(0), "{tract:?}");
    let output = rgby()
        .args(base.split_whitespace())
        .args([
            "--engine",
            "onnxruntime",
            "--out",
            "o.csv",
            "--scores",
            "op.csv",
            "--ort-lib",
        ])
        .arg(library)
        .current_dir(dir.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("engine: ONNX Runtime 1."), "{stderr}");
    let (ours, theirs) = (
        probabilities(dir.path(), "tp.csv"),
        probabilities(dir.path(), "op.csv"),
    );
    assert_eq!(ours.len(), 3);
    for (id, row) in &ours {
        let pairs = row.iter().zip(&theirs[id]);
        assert!(pairs.clone().count() == 28 && pairs.clone().all(|(a, b)| (a - b).abs() <= 1e-4));
    }
    assert_eq!(read(dir.path(), "t.csv"), read(dir.path(), "o.csv"));
}

#[test]
fn synthetic_samples_can_be_scored_and_are_not_overwritten() {
    let dir = workplace();
    let synth = "synth --out data --count 3 --size 32 --classes 0,21";
    let made = run(dir.path(), synth);
    assert_eq!((made.code, made.stdout.as_str()), (Some(0), ""), "{made:?}");
    let labels = records(dir.path(), "data/labels.csv");
    assert_eq!(labels.len(), 3);
    let drawn = |row: &Vec<String>| row[1].split(' ').all(|class| ["0", "21"].contains(&class));
    assert!(labels.iter().all(drawn), "{labels:?}");
    let again = run(dir.path(), synth);
    assert_eq!(again.code, Some(2), "{again:?}");
    assert!(again.stderr.contains("already exists"), "{again:?}");
    let args = "score --model model.onnx --images data/images --ids data/labels.csv --engine tract";
    let scored = run(dir.path(), &format!("{args} --out out.csv"));
    assert_eq!(scored.code, Some(0), "{scored:?}");
    let ids = |name: &str| -> Vec<String> {
        let rows = records(dir.path(), name);
        rows.into_iter().map(|row| row[0].clone()).collect()
    };
    assert_eq!(ids("out.csv"), ids("data/labels.csv"));
}

#[test]
fn completions_name_every_command() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let run = run(dir.path(), &format!("completions {shell}"));
        assert_eq!(run.code, Some(0), "{run:?}");
        for command in ["synth", "score", "eval", "completions"] {
            assert!(run.stdout.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let output = rgby()
        .args(["completions", "bash"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), stderr.as_str()), (Some(0), ""));
}

//! `eval`, on good input and on bad.

use std::fs;

use serde_json::Value;

use crate::support::{all_but_27, assert_refused, read, records, run, workplace_with_samples};

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

    let score = "score --engine tract --model model.onnx --images images --out out.csv";
    let run_score = run(dir.path(), &format!("{score} --scores p.csv"));
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

    let written = run(dir.path(), &format!("{eval} --out report"));
    assert_eq!(written.code, Some(1), "{written:?}");
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
fn bad_input_is_fatal_named_and_writes_nothing() {
    let dir = workplace_with_samples();
    for (name, text) in [
        ("range.csv", "Id,Target\ndark,0\nlight,3 28\n"),
        ("columns.csv", "Id,Predicted\ndark,0\n"),
        ("ghosts.csv", "Id,Target\nghost,0\n"),
        ("good.csv", "Id,Target\ndark,0\n"),
        ("p.csv", "Id,a,b\ndark,0.5,1.5\n"),
    ] {
        fs::write(dir.path().join(name), text).unwrap();
    }
    fs::create_dir(dir.path().join("run")).unwrap();
    let eval = |more: &str| format!("eval --engine tract --images images --out report {more}");
    assert_refused(
        dir.path(),
        &[
            (
                &eval("--model model.onnx --labels range.csv"),
                &["range.csv", "line 3", "class 28"],
            ),
            (
                &eval("--model model.onnx --labels columns.csv"),
                &["columns.csv", "no column `Target`"],
            ),
            (
                &eval("--model model.onnx --labels ghosts.csv"),
                &["not one of the 1", "`ghost`"],
            ),
            (
                &eval("--model run --labels good.csv"),
                &["rgby export --from run --out model.onnx"],
            ),
            (&eval("--labels good.csv"), &["--model"]),
            ("eval --model model.onnx --labels good.csv", &["--images"]),
            (
                "eval --scores p.csv --labels good.csv",
                &["p.csv", "line 2", "`1.5`"],
            ),
            (
                "eval --scores p.csv --labels good.csv --out p.csv",
                &["--out p.csv is a file"],
            ),
            (
                "eval --scores p.csv --labels good.csv --batch 2",
                &["--scores", "--batch"],
            ),
            (
                "eval --scores p.csv --labels good.csv --threshold tuned",
                &["give a number"],
            ),
        ],
    );
}

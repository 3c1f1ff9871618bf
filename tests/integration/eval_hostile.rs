//! `eval` on invalid input: failed samples, errors, and escaped names.

use std::fs;

use serde_json::Value;

use crate::support::{assert_refused, read, records, run, workplace_with_samples};

#[test]
fn lists_samples_that_cannot_be_evaluated() {
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
    assert_eq!(json["failures"][1]["error"], "its row is empty");
}

#[test]
fn invalid_input_is_an_error_and_writes_nothing() {
    let dir = workplace_with_samples();
    for (name, text) in [
        ("range.csv", "Id,Target\ndark,0\nlight,3 28\n"),
        ("columns.csv", "Id,Predicted\ndark,0\n"),
        ("ghosts.csv", "Id,Target\nghost,0\n"),
        ("good.csv", "Id,Target\ndark,0\n"),
        ("p.csv", "Id,a,b\ndark,0.5,1.5\n"),
        ("ok.csv", "Id,a,b\ndark,0.5,0.5\nlight,0.9,0.1\n"),
        ("other.csv", "Id,b,a\ndark,0.5,0.5\nlight,0.9,0.1\n"),
        ("empty.csv", "Id,Target\ndark,\nlight,\n"),
        ("two.csv", "Id,Target\ndark,0\nlight,1\n"),
        ("bad.npy", "Id,a\ndark,0.5\n"),
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
                &["none of the 1", "`ghost`"],
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
            (
                "eval --scores ok.csv --labels empty.csv",
                &["empty.csv", "none of its 2 samples has a class"],
            ),
            (
                "eval --scores ok.csv --labels good.csv --tune-thresholds",
                &["--tune-thresholds needs more than one sample"],
            ),
            (
                "eval --scores ok.csv --labels good.csv --tune-thresholds ratio",
                &["--ratios CSV"],
            ),
            (
                "eval --scores ok.csv --labels good.csv --tune-thresholds --ratios good.csv",
                &["leave it out"],
            ),
            (
                "eval --scores ok.csv --labels two.csv --tune-thresholds ratio --ratios range.csv",
                &["--ratios", "class 3", "0 to 1"],
            ),
            (
                "eval --compare ok.csv other.csv --labels two.csv",
                &["ok.csv and other.csv", "different classes"],
            ),
            (
                "eval --compare ok.csv ok.csv --labels good.csv",
                &["--compare needs at least two samples"],
            ),
            (
                "eval --scores ok.csv --ids good.csv --labels good.csv",
                &["ok.csv", "omit --ids"],
            ),
            (
                "eval --scores bad.npy --labels good.csv --ids good.csv",
                &["bad.npy", "not a .npy file"],
            ),
            (
                "eval --scores bad.npy --labels good.csv",
                &["bad.npy", "--ids"],
            ),
            (
                "eval --scores ok.csv --labels good.csv --classes range.csv",
                &["ok.csv", "no column for class 0"],
            ),
        ],
    );
}

#[test]
fn names_are_escaped_in_report_and_charts() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "<script>alert(1)</script>\"'&";
    let mut scores = csv::Writer::from_path(dir.path().join("s.csv")).unwrap();
    scores.write_record(["Id", evil, "</style></svg>"]).unwrap();
    scores.write_record([evil, "0.9", "0.2"]).unwrap();
    scores
        .write_record(["<img src=x onerror=y>", "0.1", "0.6"])
        .unwrap();
    scores.flush().unwrap();
    let mut labels = csv::Writer::from_path(dir.path().join("l.csv")).unwrap();
    labels.write_record(["Id", "Target"]).unwrap();
    labels.write_record([evil, "1"]).unwrap();
    labels.write_record(["<img src=x onerror=y>", "0"]).unwrap();
    labels.flush().unwrap();
    let run = run(dir.path(), "eval --scores s.csv --labels l.csv --out out");
    assert_eq!(run.code, Some(0), "{run:?}");
    let plots = fs::read_dir(dir.path().join("out/plots")).unwrap();
    let mut files: Vec<_> = plots.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 5);
    files.push(dir.path().join("out/report.html"));
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        for bad in ["<script", "<img src=x", "</style></svg>"] {
            assert!(!text.contains(bad), "{bad} in {}", path.display());
        }
        // A browser loads nothing from these files.
        for address in ["src=\"http", "href=", "url(", "@import"] {
            assert!(!text.contains(address), "{address} in {}", path.display());
        }
    }
    let page = read(dir.path(), "out/report.html");
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

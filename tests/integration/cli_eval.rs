//! `eval` of models, runs and scores files.

use std::fs;

use serde_json::Value;

use crate::support::{
    all_but_27, assert_refused, json, must, read, records, run, workplace_with_samples,
};

#[test]
fn evaluates_a_model_against_labels() {
    let dir = workplace_with_samples();
    // `light` shows all classes but 27; `mixed` shows red's, of which it has class 0.
    let light = all_but_27();
    fs::write(
        dir.path().join("labels.csv"),
        format!("Id,Target\nlight,{light}\nmixed,0\ndark,\n"),
    )
    .unwrap();
    let eval = "eval --engine tract --model model.onnx --images images --labels labels.csv";
    let report = json(dir.path(), &format!("{eval} --json --tune-thresholds"));
    // Of 28 classes, 21 are perfect, 6 have one false positive to one hit, class 27 is absent.
    let f1 = |key: &str| report[key].as_f64().unwrap();
    assert!(
        (f1("macro_f1") - (21.0 + 6.0 * 2.0 / 3.0) / 28.0).abs() < 1e-9,
        "{report}"
    );
    assert!(
        (f1("macro_f1_present") - 25.0 / 27.0).abs() < 1e-9,
        "{report}"
    );
    let class = &report["classes"][4];
    assert_eq!(
        (&class["name"], &class["support"]),
        (&"Nuclear speckles".into(), &1.into())
    );
    assert_eq!(class["false_positives"], 1);
    // The probabilities of red's classes tie, so no threshold separates `light` from `mixed`.
    let tuned = &report["tuned"];
    assert_eq!(tuned["on_its_own_labels"]["macro_f1"], report["macro_f1"]);
    assert_eq!(
        (&tuned["method"], &tuned["folds"]),
        (&"f1".into(), &3.into())
    );
    assert_eq!(tuned["thresholds"].as_array().unwrap().len(), 28);
    for (key, interval) in [
        ("macro_f1", "macro_f1_interval"),
        ("micro_f1", "micro_f1_interval"),
    ] {
        let ends = report[interval].as_array().unwrap();
        assert!(ends[0].as_f64() <= ends[1].as_f64(), "{key}: {ends:?}");
    }

    let text = run(dir.path(), &format!("{eval} --out report"));
    assert_eq!(text.code, Some(0), "{text:?}");
    for part in [
        "at the model's thresholds    0.8929",
        "chance",
        "Nuclear speckles",
        "27  Rods & rings",
    ] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    let written: Value = serde_json::from_str(&read(dir.path(), "report/metrics.json")).unwrap();
    assert_eq!(written["macro_f1"], report["macro_f1"]);
    assert!(read(dir.path(), "report/plots/class_f1.svg").contains("<svg"));
    let page = read(dir.path(), "report/report.html");
    // Three samples in both sections, each with a picture.
    assert_eq!(page.matches("alt=\"sample ").count(), 6);

    let score = "score --engine tract --model model.onnx --images images --out out.csv";
    must(dir.path(), &format!("{score} --scores p.csv"));
    let from_scores = json(dir.path(), "eval --scores p.csv --labels labels.csv --json");
    assert_eq!(
        from_scores["mean_average_precision"],
        report["mean_average_precision"]
    );
    assert_eq!(from_scores["loss"], report["loss"]);
    // One threshold for all: class 27 is predicted at 0.5.
    assert_eq!(from_scores["classes"][27]["false_positives"], 1);
}

/// Writes scores of 40 samples and three classes. Those of the third class are halved in `scores.csv`,
/// but not in `better.csv`.
fn scores_and_labels(dir: &std::path::Path) {
    let (mut scores, mut labels) = ("Id,x,y,z\n".to_owned(), "Id,Target\n".to_owned());
    let mut better = scores.clone();
    for i in 0..40 {
        let has = [i % 2 == 0, i % 5 == 0, i % 4 == 1];
        let noise = f64::from(i * 7 % 11) / 30.0;
        let p = has.map(|has| if has { 0.9 - noise } else { 0.4 - noise });
        scores += &format!("s{i},{},{},{}\n", p[0], p[1], p[2] / 2.0);
        better += &format!("s{i},{},{},{}\n", p[0], p[1], p[2]);
        let classes = (0..3)
            .filter(|class| has[*class])
            .map(|class| class.to_string());
        labels += &format!("s{i},{}\n", classes.collect::<Vec<_>>().join(" "));
    }
    fs::write(dir.join("scores.csv"), scores).unwrap();
    fs::write(dir.join("better.csv"), better).unwrap();
    fs::write(dir.join("labels.csv"), labels).unwrap();
}

#[test]
fn tunes_evaluates_and_writes_thresholds() {
    let dir = tempfile::tempdir().unwrap();
    scores_and_labels(dir.path());
    let eval = "eval --scores scores.csv --labels labels.csv --json --bootstrap 50";
    for (flags, method) in [
        ("--tune-thresholds", "f1"),
        ("--tune-thresholds f1", "f1"),
        ("--tune-thresholds global", "global"),
        ("--tune-thresholds ratio --ratios labels.csv", "ratio"),
    ] {
        let document = json(dir.path(), &format!("{eval} {flags} --out out"));
        let tuned = &document["tuned"];
        assert_eq!(tuned["method"], method);
        let score = |value: &Value| value["macro_f1"].as_f64().unwrap();
        assert!(score(tuned) > score(&document), "{flags}: {tuned}");
        let optimism = score(&tuned["on_its_own_labels"]) - score(tuned);
        assert!((tuned["optimism"].as_f64().unwrap() - optimism).abs() < 1e-12);
        let file: Value = serde_json::from_str(&read(dir.path(), "out/thresholds.json")).unwrap();
        // The file has float32 in its shortest form, the document as float64.
        let floats = |value: &Value| -> Vec<f32> {
            let values = value.as_array().unwrap().iter();
            values.map(|v| v.as_f64().unwrap() as f32).collect()
        };
        assert_eq!(floats(&file["thresholds"]), floats(&tuned["thresholds"]));
        assert_eq!(file["classes"][2], "z");
        if method == "global" {
            assert_eq!(file["thresholds"][0], file["thresholds"][2]);
        }
    }
    // Every sample has one predicted class, at any threshold.
    let strict = format!("{eval} --threshold 1");
    let kept = json(dir.path(), &format!("{strict} --keep-argmax"));
    assert_eq!(json(dir.path(), &strict)["macro_f1"], 0.0);
    let predicted = |class: &Value| {
        class["true_positives"].as_u64().unwrap() + class["false_positives"].as_u64().unwrap()
    };
    let classes = kept["classes"].as_array().unwrap();
    assert_eq!(classes.iter().map(predicted).sum::<u64>(), 40);
}

#[test]
fn intervals_depend_on_the_seed_only() {
    let dir = tempfile::tempdir().unwrap();
    scores_and_labels(dir.path());
    let eval = "eval --scores scores.csv --labels labels.csv --json --bootstrap 200";
    let first = json(dir.path(), eval);
    assert_eq!(first, json(dir.path(), eval));
    let other = json(dir.path(), &format!("{eval} --seed 1"));
    assert_ne!(first["micro_f1_interval"], other["micro_f1_interval"]);
    assert_eq!(first["classes"], other["classes"]);
    let none = json(dir.path(), &eval.replace("200", "0"));
    assert_eq!(none["macro_f1_interval"], Value::Null);
}

#[test]
fn compares_two_scores_files_by_sample() {
    let dir = tempfile::tempdir().unwrap();
    scores_and_labels(dir.path());
    let compare = "eval --compare scores.csv better.csv --labels labels.csv";
    let document = json(dir.path(), &format!("{compare} --json"));
    let difference = &document["differences"]["macro_f1"];
    assert!(
        difference["interval"][0].as_f64() > Some(0.0),
        "{difference}"
    );
    let classes = &document["differences"]["classes"];
    assert_eq!(classes[0]["difference"], 0.0);
    assert!(classes[2]["interval"][0].as_f64() > Some(0.0), "{classes}");
    let text = run(dir.path(), &format!("{compare} --out out"));
    assert_eq!(text.code, Some(0), "{text:?}");
    assert!(
        text.stdout.contains("macro-F1") && text.stdout.contains("  *"),
        "{text:?}"
    );
    let written: Value = serde_json::from_str(&read(dir.path(), "out/comparison.json")).unwrap();
    assert_eq!(written["differences"], document["differences"]);
}

#[cfg(feature = "train")]
#[test]
fn exports_a_model_with_tuned_thresholds() {
    use crate::support::probabilities;

    let dir = workplace_with_samples();
    let labels = "Id,Target\nlight,0 1\nmixed,0\ndark,3\n";
    fs::write(dir.path().join("labels.csv"), labels).unwrap();
    let tune = "eval --engine tract --model model.onnx --images images --labels labels.csv \
                --tune-thresholds --keep-argmax --out report --json";
    let tuned = json(dir.path(), tune)["tuned"]["thresholds"].clone();
    let export = "export --from model.onnx --out tuned.onnx --thresholds report/thresholds.json";
    let exported = must(dir.path(), export);
    assert!(exported.stderr.contains("--keep-argmax"), "{exported:?}");
    let inspected = json(dir.path(), "inspect tuned.onnx --json");
    assert_eq!(inspected["spec"]["thresholds"], tuned);
    // Everything else is unchanged.
    let before = json(dir.path(), "inspect model.onnx --json");
    assert_eq!(inspected["spec"]["classes"], before["spec"]["classes"]);
    for model in ["model", "tuned"] {
        let score = format!(
            "score --engine tract --model {model}.onnx --images images --out {model}.csv \
             --scores {model}.p.csv --keep-argmax"
        );
        must(dir.path(), &score);
        // No class of the dark sample reaches its threshold; the first is kept.
        let dark = records(dir.path(), "model.csv").remove(0);
        assert_eq!(dark, ["dark", "0"]);
    }
    let scores = |name| probabilities(dir.path(), name);
    assert_eq!(scores("tuned.p.csv"), scores("model.p.csv"));

    fs::write(
        dir.path().join("other.json"),
        r#"{"method":"f1","samples":1,"classes":["a"],"thresholds":[0.5]}"#,
    )
    .unwrap();
    assert_refused(
        dir.path(),
        &[
            ("export --from model.onnx --out n.onnx", &["--thresholds"]),
            (
                "export --from model.onnx --out n.onnx --thresholds other.json",
                &[
                    "other.json",
                    "no threshold for the model's class `Nucleoplasm`",
                ],
            ),
            (
                "export --from model.onnx --out n.onnx --thresholds labels.csv",
                &["labels.csv", "thresholds.json"],
            ),
            (
                "export --from model.onnx --out n.onnx --precision fp16 --thresholds other.json",
                &["only the thresholds can be replaced"],
            ),
        ],
    );
}

#[cfg(feature = "train")]
#[test]
fn run_on_burn_has_the_metrics_of_its_export() {
    use crate::train_support::{DATA, evaluate, workplace};

    let dir = workplace(16, "0,7,21,25");
    let path = dir.path();
    let set = "--set train.epochs=1";
    must(
        path,
        &format!("train --config baseline.toml {set} {DATA} --out first"),
    );
    must(path, "export --from first --out first.onnx --engine tract");
    let exported = evaluate(path, "first.onnx", "data");
    let burn = json(
        path,
        &format!("eval --json --threshold 0.3 --model first {DATA} --out out"),
    );
    assert!(
        burn["engine"].as_str().unwrap().starts_with("Burn on cpu"),
        "{burn}"
    );
    let loss = |document: &Value| document["loss"].as_f64().unwrap();
    assert!((loss(&burn) - loss(&exported)).abs() < 1e-4, "{burn}");
    assert_eq!(burn["samples"], 16);
    assert!(read(path, "out/report.html").contains("training steps"));
    assert_refused(
        path,
        &[
            (
                &format!("eval --model first {DATA} --device cuda"),
                &["on the CPU", "rgby export --from first"],
            ),
            (
                &format!("eval --model data {DATA}"),
                &["data is not a checkpoint"],
            ),
        ],
    );
}

#[cfg(feature = "train")]
#[test]
fn evaluates_a_run_on_its_validation_split() {
    use crate::train_support::{DATA, workplace};

    let dir = workplace(32, "0,7,21,25");
    let path = dir.path();
    let set = "--set train.epochs=1 --set data.split=random:0.25";
    must(
        path,
        &format!("train --config baseline.toml {set} {DATA} --out first"),
    );
    let folds = records(path, "first/split.csv");
    let validates = |id: &str| folds.iter().any(|row| row[0] == id && row[1] == "valid");
    let mut only = "Id,Target\n".to_owned();
    for row in records(path, "data/labels.csv") {
        if validates(&row[0]) {
            only += &format!("{},{}\n", row[0], row[1]);
        }
    }
    assert_eq!(only.lines().count(), 9);
    fs::write(path.join("only.csv"), only).unwrap();

    let flags = "--json --tune-thresholds --threshold 0.3";
    let run = json(path, &format!("eval --run first {flags} --out report"));
    assert_eq!(run["samples"], 8);
    assert!(run["engine"].as_str().unwrap().contains("checkpoints/best"));
    let mut model = json(
        path,
        &format!("eval --model first --images data/images --labels only.csv {flags}"),
    );
    // Nothing but the name of the labels file differs.
    assert_eq!(run["labels"], "data/labels.csv");
    model["labels"] = run["labels"].clone();
    assert_eq!(run, model);
    assert!(
        read(path, "report/report.html").contains("8 of the run&#39;s validation split")
            || read(path, "report/report.html").contains("8 of the run's validation split")
    );

    // Recorded paths that do not exist can be replaced.
    fs::rename(path.join("data"), path.join("moved")).unwrap();
    assert_refused(
        path,
        &[(
            "eval --run first",
            &["--run first", "data/images", "hint: pass --images"],
        )],
    );
    assert_refused(
        path,
        &[(
            "eval --run first --images moved/images",
            &["data/labels.csv", "hint: pass --labels"],
        )],
    );
    let moved = "eval --run first --images moved/images --labels moved/labels.csv";
    let moved = json(path, &format!("{moved} {flags}"));
    assert_eq!(moved["macro_f1"], run["macro_f1"]);
    assert_eq!(moved["loss"], run["loss"]);

    fs::rename(path.join("moved"), path.join("data")).unwrap();
    must(
        path,
        &format!("train --config baseline.toml --set train.epochs=1 {DATA} --out all"),
    );
    assert_refused(
        path,
        &[
            ("eval --run all", &["no validation samples", "hint: "]),
            ("eval --run data", &["data", "not a run directory"]),
            ("eval --run first --model first", &["--run", "--model"]),
            ("eval --run first --scores p.csv", &["--run", "--scores"]),
        ],
    );
}

/// Pattern and channels of the images are recorded in `run.json`.
#[cfg(feature = "train")]
#[test]
fn evaluates_a_run_with_its_own_image_layout() {
    use crate::train_support::workplace;

    let dir = workplace(16, "0,7,21,25");
    let path = dir.path();
    // `<Id>_<stain>.png` becomes `<Id>-<channel>.png`.
    for entry in fs::read_dir(path.join("data/images")).unwrap() {
        let file = entry.unwrap().path();
        let name = file.file_name().unwrap().to_str().unwrap();
        let name = name.replace("_green", "-protein").replace('_', "-");
        fs::rename(&file, file.with_file_name(name)).unwrap();
    }
    let layout = "--pattern (?<id>.+)-(?<channel>[a-z]+)\\.png --channel green=protein";
    let train = "train --config baseline.toml --set train.epochs=1 --set data.split=random:0.5 \
                 --images data/images --labels data/labels.csv --out run";
    must(path, &format!("{train} {layout}"));
    let recorded: Value = serde_json::from_str(&read(path, "run/run.json")).unwrap();
    assert_eq!(recorded["channels"]["green"], "protein");
    assert_eq!(json(path, "eval --run run --json")["samples"], 8);
}

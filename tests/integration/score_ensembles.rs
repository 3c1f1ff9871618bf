//! Test-time augmentation, ensembles, and embeddings.

use std::fs;

use image::{GrayImage, Luma};
use rgby::graph::ModelProto;
use rgby::imaging::CHANNELS;
use serde_json::Value;

use crate::support::{
    SIDE, assert_refused, change_spec, integers, must, probabilities, probability, read, records,
    run, tiny_model, tiny_model_with_embeddings, value, workplace, workplace_with_samples,
    write_model, write_sample,
};

const SCORE: &str = "score --model model.onnx --images images --engine tract --out out.csv \
                     --scores p.csv";

/// Returns [`tiny_model`] with the top left pixel of each channel instead of its mean.
fn corner_model() -> ModelProto {
    let mut model = tiny_model();
    let graph = model.graph.as_mut().unwrap();
    graph.node[0].op_type = "Slice".into();
    for (name, numbers) in [("starts", [0, 0]), ("ends", [1, 1]), ("axes", [2, 3])] {
        graph.initializer.push(integers(name, &numbers));
        graph.node[0].input.push(name.into());
    }
    model
}

/// Returns [`tiny_model`] with another size, other channels and another normalization.
fn other_model() -> ModelProto {
    let mut model = tiny_model();
    let graph = model.graph.as_mut().unwrap();
    graph.input[0] = value("image", &[2, 5, 5]);
    graph.node[2].input = vec!["flat".into(); 14];
    change_spec(&mut model, |spec| {
        spec.preprocess.size = 5;
        spec.preprocess.channels = vec!["yellow".into(), "green".into()];
        spec.preprocess.mean = vec![0.0; 2];
        spec.preprocess.std = vec![1.0; 2];
        spec.thresholds = vec![0.25; 28];
    });
    model
}

/// Returns whether each number differs from the expected one by less than 1e-6.
fn close(found: &[f32], wanted: impl Fn(usize) -> f32) -> bool {
    let mut pairs = found.iter().enumerate();
    pairs.all(|(at, found)| (found - wanted(at)).abs() < 1e-6)
}

#[test]
fn tta_does_not_change_the_output_of_an_invariant_model() {
    let dir = workplace_with_samples();
    let path = dir.path();
    must(path, SCORE);
    let without = probabilities(path, "p.csv");
    for combine in ["", "--tta-combine mean", "--tta-combine max"] {
        let stderr = must(path, &format!("{SCORE} --tta 8 {combine}")).stderr;
        assert!(
            stderr.contains("over 8 rotations and flips of each image"),
            "{stderr}"
        );
        for (id, row) in probabilities(path, "p.csv") {
            assert!(close(&row, |at| without[&id][at]), "{id}: {row:?}");
        }
    }
}

#[test]
fn tta_shows_every_corner_twice() {
    let dir = workplace();
    let path = dir.path();
    write_model(&path.join("model.onnx"), &corner_model());
    let corners = |channel: u32| [10, 60, 150, 240].map(|gray| (gray + channel) as u8);
    for (number, channel) in (0..).zip(CHANNELS) {
        let last = SIDE - 1;
        let mut image = GrayImage::from_pixel(SIDE, SIDE, Luma([99]));
        let positions = [(0, 0), (last, 0), (0, last), (last, last)];
        for ((x, y), gray) in positions.into_iter().zip(corners(number)) {
            image.put_pixel(x, y, Luma([gray]));
        }
        image
            .save(path.join(format!("images/a_{channel}.png")))
            .unwrap();
    }
    let seen = |class: usize| corners(class as u32 % 4).map(probability);
    let row = || probabilities(path, "p.csv").remove("a").unwrap();
    must(path, SCORE);
    assert!(close(&row(), |class| seen(class)[0]), "{:?}", row());
    must(path, &format!("{SCORE} --tta 8"));
    let mean = |class| seen(class).iter().sum::<f32>() / 4.0;
    assert!(close(&row(), mean), "{:?}", row());
    must(path, &format!("{SCORE} --tta 8 --tta-combine max"));
    assert!(close(&row(), |class| seen(class)[3]), "{:?}", row());
}

#[test]
fn ensembles_average_models_with_different_inputs() {
    let dir = workplace_with_samples();
    let path = dir.path();
    write_model(&path.join("other.onnx"), &other_model());
    write_model(&path.join("corner.onnx"), &corner_model());
    let args = format!("{SCORE} --ensemble other.onnx corner.onnx --json");
    let result = must(path, &args);
    for note in [
        "mean probabilities of 3 models",
        "mean of the models' thresholds",
    ] {
        assert!(result.stderr.contains(note), "no {note} in {result:?}");
    }
    let report: Value = serde_json::from_str(&result.stdout).unwrap();
    assert_eq!(
        report["ensemble"],
        serde_json::json!(["other.onnx", "corner.onnx"])
    );
    assert_eq!(report["tta"], 1);
    let grays = [
        ("dark", [10; 4]),
        ("light", [240; 4]),
        ("mixed", [240, 10, 10, 10]),
    ];
    let scored = probabilities(path, "p.csv");
    let wanted = |class: usize, grays: [u8; 4]| {
        let own = probability(grays[class % 4]);
        // The channels of `other.onnx` are yellow and green; its input range is 0–1.
        let pixel = f32::from(grays[[3, 1][class % 2]]) / 255.0;
        (2.0 * own + 1.0 / (1.0 + (-pixel).exp())) / 3.0
    };
    for (id, grays) in grays {
        let row = &scored[id];
        assert!(close(row, |class| wanted(class, grays)), "{id}: {row:?}");
    }
    // The mean of 0.5, 0.25 and 0.5 is 5/12. The thresholds of class 27 are 1, 0.25 and 1.
    let predicted = records(path, "out.csv");
    let mixed: Vec<usize> = predicted[2][1]
        .split(' ')
        .map(|c| c.parse().unwrap())
        .collect();
    let over = |class: &usize| {
        let threshold = if *class == 27 { 0.75 } else { 5.0 / 12.0 };
        wanted(*class, [240, 10, 10, 10]) >= threshold
    };
    let expected: Vec<usize> = (0..28).filter(over).collect();
    assert!(!expected.is_empty() && expected.len() < 28);
    assert_eq!(mixed, expected);
    // A sample that one of the models cannot read is a failure.
    fs::remove_file(path.join("images/dark_yellow.png")).unwrap();
    assert_eq!(run(path, &args).code, Some(1));
    assert_eq!(records(path, "out.errors.csv")[0][0], "dark");
}

/// Creates a folder with a model with embeddings, and twelve samples, three of them broken.
fn workplace_with_embeddings() -> tempfile::TempDir {
    let dir = workplace();
    write_model(
        &dir.path().join("model.onnx"),
        &tiny_model_with_embeddings(),
    );
    write_model(&dir.path().join("other.onnx"), &other_model());
    let images = dir.path().join("images");
    for id in 0..12_u8 {
        write_sample(&images, &format!("{id:02}"), [id * 20, 3, 77, 200]);
    }
    for id in ["05", "06", "07"] {
        fs::write(images.join(format!("{id}_red.png")), "no image").unwrap();
    }
    dir
}

#[test]
fn embeddings_come_from_the_first_model_averaged_over_tta() {
    let dir = workplace_with_embeddings();
    let path = dir.path();
    let input = |gray: u8| (f32::from(gray) / 255.0 - 0.5) / 0.5;
    for more in [
        "",
        "--tta 8",
        "--tta 8 --tta-combine max",
        "--ensemble other.onnx",
    ] {
        let args = format!("{SCORE} --embeddings e.csv {more}");
        assert_eq!(run(path, &args).code, Some(1), "{more}");
        assert!(read(path, "e.csv").starts_with("Id,f0,f1,f2,f3\n"));
        let rows = records(path, "e.csv");
        assert_eq!(rows.len(), 12);
        for (id, row) in (0..).zip(&rows) {
            assert_eq!(row[0], format!("{id:02}"));
            if (5..8).contains(&id) {
                assert_eq!(row[1..], ["", "", "", ""]);
                continue;
            }
            let found: Vec<f32> = row[1..].iter().map(|f| f.parse().unwrap()).collect();
            let grays = [id * 20, 3, 77, 200];
            assert!(close(&found, |at| input(grays[at])), "{more}: {row:?}");
        }
    }
}

#[test]
fn embeddings_resume_byte_identically() {
    let dir = workplace_with_embeddings();
    let path = dir.path();
    write_model(&path.join("plain.onnx"), &tiny_model());
    for (scores, embeddings) in [("p.csv", "e.csv"), ("p.parquet", "e.parquet")] {
        let files = ["out.csv", scores, embeddings, "out.errors.csv"];
        let bytes = || files.map(|file| fs::read(path.join(file)).unwrap());
        let plain = format!("{SCORE} --batch 2 --part-size 2").replace("p.csv", scores);
        let args = format!("{plain} --embeddings {embeddings}");
        assert_eq!(run(path, &args).code, Some(1));
        let whole = bytes();
        for file in files {
            fs::remove_file(path.join(file)).unwrap();
        }
        let ended = run(path, &format!("{args} --max-errors 1"));
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(path.join("out.csv.parts").exists());
        // A run without embeddings, with TTA or with another model is another run.
        let cases: [(&str, &[&str]); 3] = [
            (&format!("{plain} --resume"), &["--embeddings"]),
            (&format!("{args} --tta 8 --resume"), &["--tta"]),
            (
                &format!("{args} --ensemble plain.onnx --resume"),
                &["model: SHA-256 "],
            ),
        ];
        assert_refused(path, &cases);
        assert_eq!(run(path, &format!("{args} --resume")).code, Some(1));
        assert!(bytes() == whole, "{embeddings}");
    }
}

#[test]
fn conflicting_options_are_errors() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let mut classes = other_model();
    change_spec(&mut classes, |spec| {
        spec.classes[3] = "Something else".into();
    });
    write_model(&path.join("classes.onnx"), &classes);
    let mut lying = tiny_model();
    change_spec(&mut lying, |spec| spec.embeddings = Some(4));
    write_model(&path.join("lying.onnx"), &lying);
    fs::create_dir(path.join("run")).unwrap();
    let add = |more: &str| format!("{SCORE} {more}");
    let cases: Vec<(String, &[&str])> = vec![
        (add("--tta 4"), &["--tta", "use 1", "8"]),
        (add("--tta-combine max"), &["--tta-combine", "add --tta 8"]),
        (
            add("--tta 8 --tta-combine median"),
            &["--tta-combine", "mean, max"],
        ),
        (
            add("--ensemble classes.onnx"),
            &[
                "classes.onnx",
                "its class 3 is `Something else`",
                "model.onnx is `",
            ],
        ),
        (add("--ensemble ./model.onnx"), &["would count twice"]),
        (
            add("--ensemble none.onnx"),
            &["none.onnx", "cannot be read"],
        ),
        (
            add("--ensemble run"),
            &["--ensemble run", "rgby export --from run"],
        ),
        (
            add("--embeddings e.csv"),
            &["model.onnx", "rgby export --with-embeddings"],
        ),
        (
            add("--embeddings p.csv"),
            &["--embeddings p.csv", "another result"],
        ),
        (add("--embeddings run"), &["--embeddings run is a folder"]),
        (
            SCORE.replace("model.onnx", "lying.onnx"),
            &["lying.onnx", "no output `embeddings`"],
        ),
    ];
    let cases: Vec<(&str, &[&str])> = cases.iter().map(|(args, w)| (&**args, *w)).collect();
    assert_refused(path, &cases);
}

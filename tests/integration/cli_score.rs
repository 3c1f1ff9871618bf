//! `rgby score` with valid and invalid input.

use std::fs;
use std::path::Path;

use image::{GrayImage, ImageBuffer, ImageFormat, Luma};
use rgby::imaging::CHANNELS;
use rgby::labels::hpa_classes;
use serde_json::Value;

use crate::support::{
    Run, SIDE, all_but_27, assert_refused, finish, must, not_applicable, ort_library,
    probabilities, probability, read, records, rgby, run, skipped, tiny_model, workplace,
    workplace_with_samples, write_model, write_sample,
};

/// Runs `rgby score` on [`workplace`] with tract, which is available on every machine.
fn score(dir: &Path, more: &str) -> Run {
    let args = "score --model model.onnx --images images --engine tract --out out.csv";
    run(dir, &format!("{args} {more}"))
}

/// Writes samples in unusual formats and broken samples.
fn write_unusual_samples(images: &Path) {
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
fn readable_samples_are_scored_and_the_others_listed() {
    let dir = workplace();
    write_unusual_samples(&dir.path().join("images"));
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
    let expected = format!(
        "Id,Predicted\nbig,{all}\ncut,\ndeep,{all}\njpeg,{all}\nplain,{all}\nshort,\ntext,\n"
    );
    assert_eq!(read(dir.path(), "out.csv"), expected);
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
fn ids_select_and_order_the_samples() {
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
fn samples_without_predictions_are_noted() {
    let dir = workplace_with_samples();
    let hint = "samples reach no class's threshold";
    let high = score(dir.path(), "--threshold 1");
    assert!(high.stderr.contains(&format!("3 of 3 {hint}")), "{high:?}");
    for kept in ["--threshold 0.5", "--threshold 1 --keep-argmax"] {
        let run = score(dir.path(), kept);
        assert!(!run.stderr.contains(hint), "{kept}: {run:?}");
    }
}

#[test]
fn threshold_applies_to_all_classes() {
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
fn invalid_input_is_an_error_and_writes_nothing() {
    let dir = workplace_with_samples();
    for folder in ["empty", "folder", "run", "folder/late.errors.csv"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    fs::write(dir.path().join("text.onnx"), "not a model at all\n").unwrap();
    fs::write(dir.path().join("twice.csv"), "Id\ndark\ndark\n").unwrap();
    let score = "score --engine tract --model model.onnx --images images --out o.csv";
    let cases: &[(&str, &[&str])] = &[
        ("--out folder", &["--out folder is a folder"]),
        (
            "--out none/out.csv",
            &["there is no folder", "create it first"],
        ),
        ("--out folder/late.csv", &["late.errors.csv is a folder"]),
        ("--scores ./o.csv", &["--scores ./o.csv"]),
        ("--scores o.errors.csv", &["--scores o.errors.csv"]),
        ("--scores empty", &["--scores empty is a folder"]),
        ("--ids none.csv", &["none.csv"]),
        ("--ids twice.csv", &["twice.csv", "line 3", "`dark`"]),
        ("--threshold 2", &["--threshold", "from 0 to 1"]),
        ("--batch 0", &["--batch"]),
        ("--device gpu", &["`gpu` is not a device"]),
        ("--device cuda", &["--device cuda:0 is not available"]),
        (
            "--ort-lib text.onnx --engine auto",
            &["--ort-lib: `text.onnx` cannot be used"],
        ),
        ("--model text.onnx", &["text.onnx", "not an ONNX model"]),
        ("--model run", &["rgby export --from run --out model.onnx"]),
        ("--model none.onnx", &["none.onnx", "cannot be read"]),
        ("--images empty", &["empty", "no image files"]),
        ("--images none", &["image folder none"]),
        ("--images text.onnx", &["text.onnx is not a folder"]),
    ];
    for (change, expected) in cases {
        // The changed option replaces the valid one.
        let flags: Vec<_> = change.split(' ').step_by(2).collect();
        let words: Vec<_> = score.split(' ').skip(1).collect();
        let kept = words.chunks(2).filter(|pair| !flags.contains(&pair[0]));
        let kept: Vec<_> = kept.map(|pair| pair.join(" ")).collect();
        let args = format!("score {} {change}", kept.join(" "));
        assert_refused(dir.path(), &[(&args, expected)]);
    }
}

#[test]
fn spec_describes_a_model_without_metadata() {
    let dir = workplace_with_samples();
    let path = dir.path();
    assert_eq!(score(path, "--scores known.csv").code, Some(0));
    let known = ["out.csv", "known.csv"].map(|file| read(path, file));
    let mut model = tiny_model();
    model.metadata_props.clear();
    write_model(&path.join("model.onnx"), &model);
    let channels = format!("channels = {CHANNELS:?}");
    let classes = format!("classes = {:?}", hpa_classes());
    let thresholds: Vec<f32> = (0..28)
        .map(|class| if class < 27 { 0.5 } else { 1.0 })
        .collect();
    let thresholds = format!("thresholds = {thresholds:?}");
    let write = |name: &str, text: &str| fs::write(path.join(name), text).unwrap();
    write(
        "good.toml",
        &format!("{classes}\n{channels}\nsize = {SIDE}\n{thresholds}\n"),
    );
    write("size.toml", &format!("{classes}\n{channels}\nsize = 999\n"));
    write(
        "few.toml",
        &format!("classes = [\"a\"]\n{channels}\nsize = {SIDE}\n"),
    );
    write(
        "typo.toml",
        &format!("{classes}\nstains = []\nsize = {SIDE}\n"),
    );
    let described = score(path, "--scores told.csv --spec good.toml");
    assert_eq!(described.code, Some(0), "{described:?}");
    assert!(known == ["out.csv", "told.csv"].map(|file| read(path, file)));
    let start = "score --engine tract --model model.onnx --images images --out o.csv";
    assert_refused(
        path,
        &[
            (start, &["no `rgby` metadata", "--spec"]),
            (
                &format!("{start} --spec size.toml"),
                &["model.onnx", "999", "--spec"],
            ),
            (
                &format!("{start} --spec few.toml"),
                &["model.onnx", "28", "--spec"],
            ),
            (
                &format!("{start} --spec typo.toml"),
                &["typo.toml", "stains"],
            ),
            (&format!("{start} --spec none.toml"), &["none.toml"]),
        ],
    );
    write_model(&path.join("model.onnx"), &tiny_model());
    let own = format!("{start} --spec good.toml");
    assert_refused(path, &[(&own, &["leave out --spec"])]);
}

#[test]
fn engines_agree_within_1e_4() {
    let Some(library) = ort_library() else {
        skipped("no ONNX Runtime: neither ORT_DYLIB_PATH nor a Python package");
        return;
    };
    let dir = workplace_with_samples();
    let base = "score --model model.onnx --images images";
    must(
        dir.path(),
        &format!("{base} --engine tract --out t.csv --scores tp.csv"),
    );
    let mut command = rgby();
    command
        .args(format!("{base} --engine onnxruntime --out o.csv --scores op.csv").split(' '))
        .arg("--ort-lib")
        .arg(library);
    let scored = finish(command.current_dir(dir.path()));
    assert_eq!(scored.code, Some(0), "{scored:?}");
    assert!(
        scored.stderr.contains("engine: ONNX Runtime 1."),
        "{scored:?}"
    );
    let (tract, onnx_runtime) = (
        probabilities(dir.path(), "tp.csv"),
        probabilities(dir.path(), "op.csv"),
    );
    assert_eq!(tract.len(), 3);
    for (id, row) in &tract {
        let pairs = row.iter().zip(&onnx_runtime[id]);
        assert!(pairs.clone().count() == 28 && pairs.clone().all(|(a, b)| (a - b).abs() <= 1e-4));
    }
    assert_eq!(read(dir.path(), "t.csv"), read(dir.path(), "o.csv"));
}

#[test]
fn missing_gpu_is_an_error_that_lists_the_missing_libraries() {
    let Some(library) = ort_library() else {
        skipped("no ONNX Runtime: neither ORT_DYLIB_PATH nor a Python package");
        return;
    };
    let dir = workplace_with_samples();
    let library = library.display();
    let base = format!("score --model model.onnx --images images --out o.csv --ort-lib {library}");
    for (device, parts) in [
        ("cuda", vec!["libonnxruntime_providers_cuda.so"]),
        (
            "tensorrt:1",
            vec!["libonnxruntime_providers_tensorrt.so", "libnvinfer.so"],
        ),
    ] {
        let args = format!("{base} --device {device}");
        if run(dir.path(), &args).code == Some(0) {
            not_applicable(format_args!("--device {device} is available here"));
            continue;
        }
        let always = ["searched for", "libcudnn.so", "libcudart.so"];
        assert_refused(dir.path(), &[(&args, &[parts, always.to_vec()].concat())]);
    }
}

//! `rgby bench`: results of each benchmark, and errors.

use std::fs;

use crate::support::{assert_refused, json, must, read, workplace_with_samples};

#[test]
fn measures_scoring_by_batch_size() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let report = json(
        path,
        "bench --model model.onnx --images images --engine tract --batch-sizes 1,3 --seconds 0.02 \
         --rounds 2 --plot speed.svg --json",
    );
    let model = &report["models"][0];
    assert!(model["prepare"]["core_ms_per_image"].as_f64().unwrap() > 0.0);
    let batches = model["batches"].as_array().unwrap();
    assert_eq!(batches.len(), 2);
    for (batch, size) in batches.iter().zip([1, 3]) {
        assert_eq!(batch["batch"], size);
        let number = |pointer: &str| batch.pointer(pointer).unwrap().as_f64().unwrap();
        let percentiles = ["p50", "p95", "p99"].map(|p| number(&format!("/session/{p}_ms")));
        assert!(percentiles.is_sorted() && percentiles[0] > 0.0, "{batch}");
        // Preprocessing has a cost, so the bound is below the speed of the session.
        let bound = number("/allowed_images_per_s");
        assert!(
            0.0 < bound && bound < number("/session/images_per_s"),
            "{batch}"
        );
        assert!(number("/end_to_end/images_per_s") > 0.0);
        assert!(number("/end_to_end/cpu_ms_per_image") > 0.0);
    }
    let plot = read(path, "speed.svg");
    for text in ["batch size", "session alone", "end to end"] {
        assert!(plot.contains(text), "{text}");
    }
    // Without --json the result is a table.
    let shown = must(
        path,
        "bench --model model.onnx --images images --engine tract --batch-sizes 2 --seconds 0.01 --rounds 1",
    );
    assert!(shown.stdout.contains("end to end"), "{shown:?}");
}

#[test]
fn rejects_unusable_flags_models_and_images() {
    let dir = workplace_with_samples();
    let path = dir.path();
    let bench = "bench --engine tract --batch-sizes 1 --seconds 0.01 --model";
    fs::create_dir(path.join("empty")).unwrap();
    assert_refused(
        path,
        &[
            ("bench", &["--model", "--train"]),
            // Flags without effect.
            ("bench --train --sessions 2", &["--train", "--sessions"]),
            ("bench --train --rounds 2", &["--rounds"]),
            ("bench --model model.onnx --arch resnet50", &["--arch"]),
            ("bench --model model.onnx --steps 2", &["--steps"]),
            ("bench --model model.onnx --set train.ema=0.9", &["--set"]),
            ("bench --train --plot x.svg", &["--plot"]),
            (&format!("{bench} none.onnx"), &["none.onnx"]),
            (
                &format!("{bench} model.onnx --images empty"),
                &["no image files in empty"],
            ),
            (&format!("{bench} model.onnx --device wgpu"), &["wgpu"]),
            (
                &format!("{bench} model.onnx --rounds 0"),
                &["--rounds", "at least 1"],
            ),
            (
                "bench --model model.onnx --seconds 0",
                &["--seconds", "0.01"],
            ),
            (
                "bench --model model.onnx --batch-sizes 1,0",
                &["--batch-sizes", "at least 1"],
            ),
        ],
    );
    let broken = fs::read_dir(path.join("images")).unwrap().next().unwrap();
    let broken = broken.unwrap().path();
    fs::write(&broken, "no image").unwrap();
    let name = broken.file_name().unwrap().to_str().unwrap();
    let args = format!("{bench} model.onnx --images images");
    assert_refused(path, &[(&args, &[name])]);
}

#[test]
fn measures_each_part_of_training() {
    let dir = tempfile::tempdir().unwrap();
    let report = json(
        dir.path(),
        "bench --train --arch baseline --input-size 32 --batch-size 4 --steps 3 --json",
    );
    let number = |key: &str| report[key].as_f64().unwrap();
    for key in ["step", "loader", "decoder", "loop"] {
        assert!(number(&format!("{key}_images_per_s")) > 0.0, "{report}");
    }
    // Decoding images is slower than reading decoded pixels.
    assert!(number("loader_images_per_s") > number("decoder_images_per_s"));
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
    assert_refused(
        dir.path(),
        &[
            ("bench --arch baseline", &["--train"]),
            ("bench --train --steps 0", &["--steps"]),
            ("bench --train --input-size 1", &["model.input_size"]),
        ],
    );
}

#[test]
fn measures_preprocessing() {
    let dir = tempfile::tempdir().unwrap();
    must(dir.path(), "synth --out data --count 3 --size 64");
    let bench = "bench --preprocess --images data/images --input-size 32 --steps 2";
    let report = json(dir.path(), &format!("{bench} --json"));
    assert_eq!(report["samples"], 3);
    for key in [
        "preprocess_images_per_s_per_core",
        "preprocess_images_per_s",
    ] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{report}");
    }
    let first = fs::read_dir(dir.path().join("data/images")).unwrap().next();
    fs::write(first.unwrap().unwrap().path(), b"").unwrap();
    assert_refused(
        dir.path(),
        &[
            ("bench --preprocess --input-size 32", &["--images"]),
            ("bench --train --images data/images", &["--images"]),
            (bench, &["sample `", "the file is empty"]),
        ],
    );
}

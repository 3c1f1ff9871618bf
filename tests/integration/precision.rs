//! Lower precisions and embeddings: export, comparison with float32 in both engines, errors.

use std::fs;
use std::path::Path;

use rgby::graph::ModelProto;
use rgby::graph::tensor::values;
use rgby::imaging::CHANNELS;
use rgby::model::{Arch, random_export};
use serde_json::Value;

use crate::onnx_support::run_model;
use crate::support::{
    assert_refused, json, must, ort_library, probabilities, run, skipped, write_model,
};
use crate::train_support::{DATA, workplace};

/// Exports a run with the given arguments and returns the JSON report.
fn export(dir: &Path, args: &str) -> Value {
    json(dir, &format!("export --json {args}"))
}

/// Returns all probabilities of a model for the samples in `data` in one engine.
fn scores(dir: &Path, model: &str, engine: &str) -> Vec<f32> {
    let args = format!(
        "score --engine {engine} --model {model} --images data/images --out p.csv --scores s.csv"
    );
    must(dir, &args);
    probabilities(dir, "s.csv")
        .into_values()
        .flatten()
        .collect()
}

/// Returns the largest and the mean difference.
pub fn change(a: &[f32], b: &[f32]) -> (f32, f32) {
    assert_eq!(a.len(), b.len());
    let gaps: Vec<f32> = a.iter().zip(b).map(|(a, b)| (a - b).abs()).collect();
    let sum: f32 = gaps.iter().sum();
    (
        gaps.iter().fold(0.0, |most, gap| most.max(*gap)),
        sum / gaps.len() as f32,
    )
}

fn size(dir: &Path, name: &str) -> f64 {
    fs::metadata(dir.join(name)).unwrap().len() as f64
}

fn engines() -> Vec<&'static str> {
    if ort_library().is_some() {
        return vec!["tract", "onnxruntime"];
    }
    skipped("ONNX Runtime is not installed; precisions are tried in tract only");
    vec!["tract"]
}

/// Creates a folder with a trained run in `first`.
fn trained(arch: &str) -> tempfile::TempDir {
    let dir = workplace(24, "0,25");
    let set = format!("--set model.arch={arch} --set train.epochs=3");
    must(
        dir.path(),
        &format!("train --config baseline.toml {set} {DATA} --out first"),
    );
    dir
}

#[test]
fn float16_matches_float32_in_both_engines() {
    if ort_library().is_none() {
        skipped("ONNX Runtime is not installed; float16 is compared on it");
        return;
    }
    for arch in ["baseline", "plain"] {
        let dir = trained(arch);
        let path = dir.path();
        export(path, "--from first --out full.onnx");
        let report = export(path, "--from first --out half.onnx --precision fp16");
        let compared = &report["compared_with_fp32"];
        assert!(
            compared["largest_change"].as_f64().unwrap() < 1e-3,
            "{report}"
        );
        assert!(
            compared["images_from"]
                .as_str()
                .unwrap()
                .starts_with("synthetic")
        );
        assert!(compared["images_per_s"].as_f64().unwrap() > 0.0);
        assert_eq!(report["bytes"].as_f64(), Some(size(path, "half.onnx")));
        let share = size(path, "half.onnx") / size(path, "full.onnx");
        assert!(share < 0.52, "{arch}: {share}");
        // tract takes minutes for the larger network.
        for engine in engines() {
            if (arch, engine) == ("plain", "tract") {
                continue;
            }
            let half = scores(path, "half.onnx", engine);
            let (largest, _) = change(&half, &scores(path, "full.onnx", engine));
            assert!(
                largest > 0.0 && largest < 2e-3,
                "{arch}, {engine}: {largest}"
            );
        }
    }
}

#[test]
fn int8_approximates_float32_in_both_engines() {
    if ort_library().is_none() {
        skipped("ONNX Runtime is not installed; int8 is calibrated on it");
        return;
    }
    for arch in ["baseline", "plain"] {
        let dir = trained(arch);
        let path = dir.path();
        export(path, "--from first --out full.onnx");
        let report = export(
            path,
            "--from first --out small.onnx --precision int8 --calibrate data/images \
             --labels data/labels.csv",
        );
        let compared = &report["compared_with_fp32"];
        assert_eq!(compared["images"], 24);
        assert_eq!(compared["images_from"], "the images of --calibrate");
        let f1 = |key: &str| compared[key].as_f64().unwrap();
        assert!(
            (f1("macro_f1") - f1("fp32_macro_f1")).abs() < 0.1,
            "{report}"
        );
        let share = size(path, "small.onnx") / size(path, "full.onnx");
        assert!(share < 0.27, "{arch}: {share}");
        let full = scores(path, "full.onnx", "onnxruntime");
        for engine in engines() {
            let (largest, mean) = change(&scores(path, "small.onnx", engine), &full);
            assert!(
                largest > 0.0 && largest < 0.1,
                "{arch}, {engine}: {largest}"
            );
            assert!(mean < 0.01, "{arch}, {engine}: {mean}");
        }
    }
}

#[test]
fn reduces_the_size_of_a_pretrained_network() {
    if ort_library().is_none() {
        skipped("ONNX Runtime is not installed; lower precisions are compared on it");
        return;
    }
    let dir = workplace(8, "0,25");
    let path = dir.path();
    let pretrained = random_export(Arch::ResNet50, 3).unwrap();
    write_model(&path.join("pretrained.onnx"), &pretrained);
    must(path, "convert --onnx pretrained.onnx --out initial");
    for precision in ["fp16", "int8"] {
        let report = export(
            path,
            &format!(
                "--from initial --out {precision}.onnx --precision {precision} \
                      --calibrate data/images --with-embeddings"
            ),
        );
        let bytes = report["bytes"].as_f64().unwrap();
        let full = report["compared_with_fp32"]["fp32_bytes"].as_f64().unwrap();
        let limit = if precision == "fp16" { 0.51 } else { 0.26 };
        assert!(bytes / full < limit, "{report}");
        let seen = json(path, &format!("inspect --json {precision}.onnx"));
        assert_eq!(seen["spec"]["precision"], precision);
        assert_eq!(seen["spec"]["embeddings"], 2048);
        let text = must(path, &format!("inspect {precision}.onnx")).stdout;
        assert!(
            text.contains(&format!("precision   {precision}, for scoring only")),
            "{text}"
        );
        assert!(text.contains("embeddings  2048 features"), "{text}");
        let model = rgby::graph::read(&path.join(format!("{precision}.onnx"))).unwrap();
        let left = model
            .graph
            .node
            .iter()
            .filter(|node| node.op_type == "BatchNormalization");
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn embeddings_are_the_input_of_the_head_and_do_not_change_probabilities() {
    let dir = workplace(8, "0,25");
    let path = dir.path();
    let set = "--set model.hidden=[] --set train.epochs=1";
    must(
        path,
        &format!("train --config baseline.toml {set} {DATA} --out first"),
    );
    export(path, "--from first --out plain.onnx");
    let report = export(path, "--from first --out both.onnx --with-embeddings");
    let width = report["embeddings"].as_u64().unwrap() as usize;
    let model = rgby::graph::read(&path.join("both.onnx")).unwrap();
    let names: Vec<_> = model
        .graph
        .output
        .iter()
        .map(|output| &*output.name)
        .collect();
    assert_eq!(names, ["probabilities", "embeddings"]);

    // Sigmoid of the output layer on the embeddings is the probabilities.
    let images: Vec<f32> = (0..2 * 4 * 32 * 32)
        .map(|i| (i % 17) as f32 / 8.0 - 1.0)
        .collect();
    let shape = [2, 4, 32, 32];
    let (_, expected) = run_model(&model, shape, &images);
    let swapped = swapped(&model);
    let (found, embeddings) = run_model(&swapped, shape, &images);
    assert_eq!(found, [2, width]);
    let weight = |name: &str| {
        let tensor = model
            .graph
            .initializer
            .iter()
            .find(|tensor| tensor.name == name);
        values(tensor.unwrap()).unwrap()
    };
    let (matrix, bias) = (weight("head.output.weight"), weight("head.output.bias"));
    for (row, expected) in embeddings.chunks(width).zip(expected.chunks(bias.len())) {
        for (class, expected) in expected.iter().enumerate() {
            let products = row
                .iter()
                .enumerate()
                .map(|(at, x)| x * matrix[at * bias.len() + class]);
            let logit = bias[class] + products.sum::<f32>();
            let probability = 1.0 / (1.0 + (-logit).exp());
            assert!(
                (probability - expected).abs() < 1e-5,
                "{probability} {expected}"
            );
        }
    }

    // Scoring finds the probabilities by name, in any order of outputs.
    write_model(&path.join("swapped.onnx"), &swapped);
    for engine in engines() {
        let plain = scores(path, "plain.onnx", engine);
        for other in ["both.onnx", "swapped.onnx"] {
            assert!(scores(path, other, engine) == plain, "{other}");
        }
    }
    // The file can be retrained; the checkpoint has no embeddings.
    must(
        path,
        &format!("retrain --from both.onnx --config baseline.toml {set} {DATA} --out second"),
    );
    let seen = json(path, "inspect --json second");
    assert_eq!(seen["spec"].get("embeddings"), None);
}

/// Returns the same model with its outputs in reverse order.
fn swapped(model: &ModelProto) -> ModelProto {
    let mut model = model.clone();
    model.graph.mut_or_insert_default().output.swap(0, 1);
    model
}

#[test]
fn rejects_exports_that_are_not_possible() {
    if ort_library().is_none() {
        skipped("ONNX Runtime is not installed; lower precisions are compared on it");
        return;
    }
    let dir = workplace(4, "0,25");
    let path = dir.path();
    let set = "--set train.epochs=1";
    must(
        path,
        &format!("train --config baseline.toml {set} {DATA} --out first"),
    );
    must(path, "export --from first --out half.onnx --precision fp16");
    fs::create_dir(path.join("empty")).unwrap();
    fs::create_dir(path.join("broken")).unwrap();
    for stain in CHANNELS {
        fs::write(path.join(format!("broken/x_{stain}.png")), "no image").unwrap();
    }
    fs::write(path.join("others.csv"), "Id,Target\nnobody,0\n").unwrap();
    let int8 = "export --from first --out x.onnx --precision int8";
    let cases = [
        (int8.to_owned(), vec!["--calibrate DIR"]),
        (
            format!("{int8} --calibrate empty"),
            vec!["--calibrate", "empty"],
        ),
        (
            format!("{int8} --calibrate nowhere"),
            vec!["--calibrate", "nowhere"],
        ),
        (
            format!("{int8} --calibrate data/images --engine tract"),
            vec![
                "--precision int8",
                "ONNX Runtime",
                "pip install onnxruntime",
            ],
        ),
        (
            "export --from first --out x.onnx --precision fp16 --engine tract".into(),
            vec![
                "--precision fp16",
                "ONNX Runtime",
                "pip install onnxruntime",
            ],
        ),
        (
            "export --from first --out x.onnx --precision fp16 --calibrate broken".into(),
            vec!["none of the 1 samples", "x_red.png"],
        ),
        (
            "export --from first --out x.onnx --precision fp16 --calibrate data/images \
             --labels others.csv"
                .into(),
            vec!["no image of --calibrate has a line in --labels"],
        ),
        (
            "export --from first --out x.onnx --calibrate data/images".into(),
            vec!["--calibrate is for"],
        ),
        (
            format!("retrain --from half.onnx --config baseline.toml {DATA} --out x"),
            vec!["half.onnx", "--precision fp16", "start from the checkpoint"],
        ),
        (
            "convert --onnx half.onnx --out x".into(),
            vec!["half.onnx", "--precision fp16"],
        ),
    ];
    let cases: Vec<(&str, &[&str])> = cases
        .iter()
        .map(|(args, wanted)| (&**args, &**wanted))
        .collect();
    assert_refused(path, &cases);
    let unknown = run(path, "export --from first --out x.onnx --precision fp8");
    assert_eq!(unknown.code, Some(2));
    assert!(
        unknown.stderr.contains("fp32, fp16, int8"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn lists_an_unreadable_calibration_image_and_uses_the_rest() {
    if ort_library().is_none() {
        skipped("ONNX Runtime is not installed; lower precisions are compared on it");
        return;
    }
    let dir = workplace(4, "0,25");
    let path = dir.path();
    must(
        path,
        &format!("train --config baseline.toml --set train.epochs=1 {DATA} --out first"),
    );
    let red = fs::read_dir(path.join("data/images"))
        .unwrap()
        .filter_map(Result::ok);
    let mut red = red
        .map(|entry| entry.path())
        .filter(|p| p.to_string_lossy().contains("_red"));
    fs::write(red.next().unwrap(), "no image").unwrap();
    let args =
        "export --json --from first --out half.onnx --precision fp16 --calibrate data/images";
    let result = run(path, args);
    assert_eq!(result.code, Some(1), "{}", result.stderr);
    assert!(
        result.stderr.contains("1 of 4 samples"),
        "{}",
        result.stderr
    );
    let report: Value = serde_json::from_str(&result.stdout).unwrap();
    assert_eq!(report["compared_with_fp32"]["images"], 3);
    assert_eq!(report["compared_with_fp32"]["failed"], 1);
}

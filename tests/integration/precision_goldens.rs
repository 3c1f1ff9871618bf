//! Compares lower precisions with those of the Python tools for the same file.

use std::fs;
use std::path::Path;

use rgby::graph::float16::to_float16;
use rgby::graph::folding::fold_into_convolutions;
use rgby::graph::quantize::{plan, quantize, range_observer};
use serde_json::Value;

use crate::onnx_support::{relative_difference, run_model};
use crate::precision::change;
use crate::support::{ort_library, skipped};

/// Returns the images of `tests/golden/precision.py`.
fn golden_images(count: usize) -> Vec<f32> {
    let length = 3 * 64 * 64;
    let value = |i: usize| {
        let (n, noise) = (
            (i / length) as f64,
            (i * 7919 % 10_007) as f64 / 5003.0 - 1.0,
        );
        (noise * (0.3 + 0.02 * n) + 0.4 * n.sin()) as f32
    };
    (0..count * length).map(value).collect()
}

#[test]
fn both_precisions_are_as_accurate_as_those_of_the_python_tools() {
    const COUNT: usize = 24;
    const CALIBRATION: usize = 16;
    if ort_library().is_none() {
        skipped("ONNX Runtime is not installed; the figures of the Python tools refer to it");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let golden = fs::read(root.join("golden/precision.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let file = root.join("exports/small/legacy-kept-opset17.onnx");
    let full = rgby::graph::read(&file).unwrap();
    let (shape, images) = ([COUNT, 3, 64, 64], golden_images(COUNT));
    let (_, expected) = run_model(&full, shape, &images);
    for (found, golden) in expected.iter().zip(golden["outputs"].as_array().unwrap()) {
        assert!((f64::from(*found) - golden.as_f64().unwrap()).abs() < 1e-3);
    }
    let mut folded = full;
    let graph = folded.graph.mut_or_insert_default();
    assert!(fold_into_convolutions(graph).unwrap() > 20);
    let (_, outputs) = run_model(&folded, shape, &images);
    assert!(relative_difference(&outputs, &expected) < 1e-5);

    let mut half = folded.clone();
    to_float16(half.graph.mut_or_insert_default()).unwrap();
    let mut small = folded.clone();
    let plan = plan(&folded.graph).unwrap();
    let mut observer = folded.clone();
    observer.graph = Some(range_observer(&folded.graph, &plan)).into();
    let calibration = &images[..CALIBRATION * 3 * 64 * 64];
    let (_, extremes) = run_model(&observer, [CALIBRATION, 3, 64, 64], calibration);
    let ranges: Vec<_> = extremes.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    quantize(small.graph.mut_or_insert_default(), &plan, &ranges).unwrap();

    let scale = expected
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    for (name, model) in [("float16", half), ("int8", small)] {
        let (_, outputs) = run_model(&model, shape, &images);
        let (largest, mean) = change(&outputs, &expected);
        let python = |key: &str| golden[name][key].as_f64().unwrap() as f32;
        let (largest, mean) = (largest / scale, mean / scale);
        eprintln!(
            "{name}: {largest} (Python {}), {mean} ({})",
            python("largest"),
            python("mean")
        );
        assert!(largest < 1.2 * python("largest"), "{name}: {largest}");
        assert!(mean < 1.2 * python("mean"), "{name}: {mean}");
    }
}

//! Converts a small network from the files of many exporters. The scripts in `tests/exports/`
//! generate the files.

use std::fs;
use std::path::{Path, PathBuf};

use rgby::graph::matching::{StructureMismatch, likeness};
use rgby::graph::network::Network;
use rgby::graph::patches::normalize;
use rgby::graph::tensor::set_values;
use rgby::graph::weight_transfer::{Weight, transfer_weights};
use rgby::graph::{GraphError, ModelProto, read, read_bytes};

use crate::onnx_support::{pooled_features, relative_difference};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exports/small")
}

fn skeleton() -> ModelProto {
    let mut model = read_bytes(&fs::read(folder().join("skeleton.onnx")).unwrap()).unwrap();
    normalize(model.graph.mut_or_insert_default()).unwrap();
    model
}

/// Returns the skeleton with the weights of an export, and three counts: unfolded layers, copied
/// weights, computed weights.
fn transferred(path: &Path) -> Result<(ModelProto, [usize; 3]), GraphError> {
    let mut source = read(path)?;
    normalize(source.graph.mut_or_insert_default())?;
    let (mut model, skeleton) = (skeleton(), skeleton());
    let network = Network::new(&source.graph)?;
    let transferred = transfer_weights(&network, &Network::new(&skeleton.graph)?)?;
    let same = |weight: &&Weight<_>| matches!(weight, Weight::Same(_));
    let copied = transferred.weights.values().filter(same).count();
    for tensor in &mut model.graph.mut_or_insert_default().initializer {
        if let Some(weight) = transferred.weights.get(&tensor.name) {
            let (shape, values) = weight.read()?;
            let dims: Vec<i64> = shape.iter().map(|&dim| dim as i64).collect();
            assert_eq!(dims, tensor.dims, "{}", tensor.name);
            set_values(tensor, &values);
        }
    }
    let computed = transferred.weights.len() - copied;
    Ok((model, [transferred.unfolded, copied, computed]))
}

#[test]
fn files_of_all_exporters_give_the_same_features() {
    let expected: serde_json::Value =
        serde_json::from_slice(&fs::read(folder().join("expected.json")).unwrap()).unwrap();
    let shape: Vec<usize> = serde_json::from_value(expected["input_shape"].clone()).unwrap();
    let shape: [usize; 4] = shape.try_into().unwrap();
    let features: Vec<Vec<f32>> = serde_json::from_value(expected["features"].clone()).unwrap();
    let features = features.concat();
    let count: usize = shape.iter().product();
    let images: Vec<f32> = (0..count)
        .map(|i| ((i * 7919 % 10_007) as f64 / 5003.0 - 1.0) as f32)
        .collect();

    let mut tried = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.extension().is_none_or(|end| end != "onnx") || name == "skeleton.onnx" {
            continue;
        }
        let (model, [unfolded, copied, computed]) =
            transferred(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        // A file with its BatchNorm nodes has the same tensors as the skeleton.
        if name.contains("-kept-") {
            assert_eq!((unfolded, computed), (0, 0), "{name}");
        } else {
            assert!(unfolded > 0 && copied > 0, "{name}");
        }
        let tolerance = if name.contains("fp16") { 1e-2 } else { 1e-4 };
        let difference = relative_difference(&pooled_features(&model, shape, &images), &features);
        assert!(difference <= tolerance, "{name}: {difference:e}");
        tried += 1;
    }
    assert!(tried >= 14, "only {tried} files in {}", folder().display());
}

#[test]
fn error_names_a_changed_attribute() {
    let mut source = read(&folder().join("legacy-kept-opset17.onnx")).unwrap();
    let graph = source.graph.mut_or_insert_default();
    let pool = graph
        .node
        .iter_mut()
        .find(|node| node.op_type == "AveragePool");
    let pool = pool.unwrap();
    let name = pool.name.clone();
    rgby::graph::attributes::set_ints(pool, "strides", &[3, 3]);
    normalize(graph).unwrap();
    let skeleton = skeleton();
    let (changed, original) = (
        Network::new(&source.graph).unwrap(),
        Network::new(&skeleton.graph).unwrap(),
    );
    let Err(GraphError::Mismatch(StructureMismatch { expected, found })) =
        transfer_weights(&changed, &original)
    else {
        panic!("a network with another stride was accepted");
    };
    assert!(expected.starts_with("AveragePool"), "{expected}");
    assert!(
        found.contains("strides [3, 3]") && found.contains(&name),
        "{found}"
    );
    // Everything else is equal.
    let alike = likeness(&changed, &original);
    assert!((0.97..1.0).contains(&alike), "{alike}");
}

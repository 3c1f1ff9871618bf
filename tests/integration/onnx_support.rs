//! Models that the tests run and change themselves, on the engine behind `ort`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use rgby::graph::tensor::{set_values, values};
use rgby::graph::{Message, ModelProto, NodeProto, TensorProto};

use crate::support::{ort_library, skipped};

/// The process's engine behind `ort`: ONNX Runtime if it is there, else tract.
fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        if let Some(library) = ort_library() {
            return ort::init_from(library).unwrap().build().unwrap();
        }
        skipped("ONNX Runtime is not installed; features are compared with tract's");
        ort::set_api(ort_tract::api());
        ort::init().build().unwrap()
    })
}

/// Runs a model whose output is a feature map, and averages that over height and width: `[N, F]`.
pub fn pooled_features(model: &ModelProto, shape: [usize; 4], images: &[f32]) -> Vec<f32> {
    let (shape, features) = run_model(model, shape, images);
    let area = shape[2] * shape[3];
    let maps = features.chunks(area);
    maps.map(|map| map.iter().sum::<f32>() / area as f32)
        .collect()
}

/// Shape and values of a model's output.
pub fn run_model(model: &ModelProto, shape: [usize; 4], images: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let mut session = Session::builder(environment())
        .unwrap()
        .commit_from_memory(&model.write_to_bytes().unwrap())
        .unwrap();
    let input = TensorRef::from_array_view((shape, images)).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    let (shape, values) = outputs[0].try_extract_tensor::<f32>().unwrap();
    let shape = shape.iter().map(|&dim| dim as usize).collect();
    (shape, values.to_vec())
}

/// Folds every BatchNorm into the convolution before it, as exporters do in inference mode.
pub fn fold_batch_norms(model: &mut ModelProto) {
    let graph = model.graph.mut_or_insert_default();
    let mut weights: BTreeMap<String, TensorProto> = graph
        .initializer
        .drain(..)
        .map(|tensor| (tensor.name.clone(), tensor))
        .collect();
    let mut renamed = BTreeMap::new();
    for at in 0..graph.node.len() {
        if graph.node[at].op_type != "BatchNormalization" {
            continue;
        }
        let norm = graph.node[at].clone();
        let made_by = |node: &&mut NodeProto| node.output[0] == norm.input[0];
        let conv = graph.node.iter_mut().find(made_by).unwrap();
        assert_eq!((conv.op_type.as_str(), conv.input.len()), ("Conv", 2));
        let read = |name: &String| values(&weights[name]).unwrap();
        let [gamma, beta, mean, variance] = [1, 2, 3, 4].map(|input| read(&norm.input[input]));
        let scale: Vec<f32> = gamma
            .iter()
            .zip(&variance)
            .map(|(gamma, variance)| gamma / (variance + 1e-5).sqrt())
            .collect();
        let mut filters = read(&conv.input[1]);
        let count = filters.len() / scale.len();
        for (filter, scale) in filters.chunks_mut(count).zip(&scale) {
            for value in filter {
                *value *= scale;
            }
        }
        let bias: Vec<f32> = (0..scale.len())
            .map(|channel| beta[channel] - mean[channel] * scale[channel])
            .collect();
        set_values(weights.get_mut(&conv.input[1]).unwrap(), &filters);
        let mut tensor = weights.remove(&norm.input[2]).unwrap();
        set_values(&mut tensor, &bias);
        conv.input.push(tensor.name.clone());
        weights.insert(tensor.name.clone(), tensor);
        for input in [1, 3, 4] {
            weights.remove(&norm.input[input]);
        }
        renamed.insert(norm.output[0].clone(), norm.input[0].clone());
    }
    graph
        .node
        .retain(|node| node.op_type != "BatchNormalization");
    for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(source) = renamed.get(name) {
            name.clone_from(source);
        }
    }
    graph.initializer.extend(weights.into_values());
}

/// Largest difference, as a share of the largest expected value.
pub fn relative_difference(values: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(values.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    assert!(largest > 0.1, "the expected values vanish: {largest}");
    let pairs = values.iter().zip(expected);
    pairs.fold(0.0_f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

//! Runs a model on ONNX Runtime, or on tract where `ORT_DYLIB_PATH` is not set.

use std::env;
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use crate::tensor::FLOAT;
use crate::{GraphProto, Message, ModelProto};

fn environment() -> &'static Environment {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    ENVIRONMENT.get_or_init(|| {
        if let Some(library) = env::var_os("ORT_DYLIB_PATH") {
            return ort::init_from(library).unwrap().build().unwrap();
        }
        ort::set_api(ort_tract::api());
        ort::init().build().unwrap()
    })
}

/// Returns shape and values of the graph's first output for one image of shape `dims`.
pub fn run(graph: &GraphProto, dims: [usize; 4], image: &[f32]) -> (Vec<usize>, Vec<f32>) {
    let bytes = model(graph, dims).write_to_bytes().unwrap();
    let mut session = Session::builder(environment())
        .unwrap()
        // The graph is executed as it is written.
        .with_optimization_level(GraphOptimizationLevel::Disable)
        .unwrap()
        .commit_from_memory(&bytes)
        .unwrap();
    let input = TensorRef::from_array_view((dims, image)).unwrap();
    let outputs = session.run(ort::inputs![input]).unwrap();
    let (shape, values) = outputs[0].try_extract_tensor::<f32>().unwrap();
    let shape = shape.iter().map(|&dim| dim as usize).collect();
    (shape, values.to_vec())
}

/// Returns a model of operator set 13 whose only input has the shape `dims`.
fn model(graph: &GraphProto, dims: [usize; 4]) -> ModelProto {
    let mut model = ModelProto::new();
    model.ir_version = 7;
    model.opset_import.push(<_>::default());
    model.opset_import[0].version = 13;
    model.graph = Some(graph.clone()).into();
    let graph = model.graph.mut_or_insert_default();
    graph.name = "properties".into();
    let input = graph.input[0].type_.mut_or_insert_default();
    let tensor = input.mut_tensor_type();
    tensor.elem_type = FLOAT;
    tensor.shape = Some(<_>::default()).into();
    for dim in dims {
        let shape = &mut tensor.shape.mut_or_insert_default().dim;
        shape.push(<_>::default());
        shape.last_mut().unwrap().set_dim_value(dim as i64);
    }
    let output = graph.output[0].type_.mut_or_insert_default();
    output.mut_tensor_type().elem_type = FLOAT;
    output.mut_tensor_type().shape.clear();
    model
}

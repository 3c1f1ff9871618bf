//! Quantization of graphs that are small enough to check by hand.

use std::collections::HashMap;

use super::quantize::{EXTREMES, QuantizationPlan, plan, quantize, range_observer};
use super::tensor::{INT8, INT32, UINT8, set_values, values};
use super::tests::{GraphBuilder, weight, with_int};
use super::{GraphProto, TensorProto};

fn vector(name: &str, numbers: &[f32]) -> TensorProto {
    let mut tensor = weight(name, &[numbers.len() as i64]);
    set_values(&mut tensor, numbers);
    tensor
}

/// Two convolutions with a pooling between and a sum after them, a dense layer and the last one.
fn graph() -> GraphProto {
    GraphBuilder::new()
        .weight(weight("w", &[2, 3, 1, 1]))
        .weight(vector("wb", &[0.5, -1.0]))
        .weight(weight("v", &[2, 2, 1, 1]))
        .weight(weight("hidden", &[2, 4]))
        .weight(weight("last", &[4, 5]))
        .node("Conv", &["image", "w", "wb"], "a")
        .node("Relu", &["a"], "r")
        .node("MaxPool", &["r"], "p")
        .node("Conv", &["p", "v"], "b")
        .node("Add", &["b", "p"], "s")
        .node("GlobalAveragePool", &["s"], "g")
        .node("Flatten", &["g"], "f")
        .node("MatMul", &["f", "hidden"], "h")
        .node("Sigmoid", &["h"], "z")
        .node("MatMul", &["z", "last"], "y")
        .graph("y")
}

fn ranges(plan: &QuantizationPlan) -> Vec<(f32, f32)> {
    let known = HashMap::from([
        ("image", (-1.0, 1.0)),
        ("r", (0.25, 2.55)),
        ("p", (1.0, 2.0)),
        ("b", (-3.0, 2.1)),
        ("s", (0.0, 0.0)),
        ("f", (0.0, 5.1)),
    ]);
    let activations = plan.activations.iter();
    activations.map(|name| known[name.as_str()]).collect()
}

fn stored<'g>(graph: &'g GraphProto, name: &str) -> &'g TensorProto {
    let found = graph.initializer.iter().find(|tensor| tensor.name == name);
    found.unwrap_or_else(|| panic!("there is no {name}"))
}

fn inputs(graph: &GraphProto, output: &str) -> Vec<String> {
    let node = graph.node.iter().find(|node| node.output[0] == output);
    node.unwrap().input.clone()
}

#[test]
fn plans_all_layers_but_the_last_and_the_values_between() {
    let graph = graph();
    let plan = plan(&graph).unwrap();
    // The output of the ReLU, not that of the convolution before it.
    assert_eq!(plan.activations, ["image", "r", "p", "b", "s", "f"]);
    let layers: Vec<_> = plan
        .layers
        .iter()
        .map(|&at| &*graph.node[at].output[0])
        .collect();
    assert_eq!(layers, ["a", "b", "h"]);
}

#[test]
fn refuses_a_graph_without_layers() {
    let graph = GraphBuilder::new()
        .weight(weight("last", &[3, 5]))
        .node("GlobalAveragePool", &["image"], "g")
        .node("MatMul", &["g", "last"], "y")
        .graph("y");
    let error = plan(&graph).unwrap_err().to_string();
    assert!(error.contains("no convolution or dense layer"), "{error}");
}

#[test]
fn observer_outputs_the_extremes_only() {
    let graph = graph();
    let observer = range_observer(&graph, &plan(&graph).unwrap());
    assert_eq!(observer.output.len(), 1);
    assert_eq!(observer.output[0].name, EXTREMES);
    let joined = inputs(&observer, EXTREMES);
    assert_eq!(joined.len(), 12);
    assert_eq!(
        joined[..2],
        ["image/ReduceMin/part", "image/ReduceMax/part"]
    );
}

#[test]
fn layers_and_other_nodes_read_dequantized_values() {
    let mut graph = graph();
    let plan = plan(&graph).unwrap();
    let ranges = ranges(&plan);
    quantize(&mut graph, &plan, &ranges).unwrap();
    assert_eq!(
        inputs(&graph, "a"),
        ["image/dequantized", "w/dequantized", "wb/dequantized"]
    );
    assert_eq!(inputs(&graph, "r"), ["a"]);
    assert_eq!(inputs(&graph, "s"), ["b/dequantized", "p/dequantized"]);
    assert_eq!(inputs(&graph, "g"), ["s/dequantized"]);
    assert_eq!(inputs(&graph, "h"), ["f/dequantized", "hidden/dequantized"]);
    assert_eq!(inputs(&graph, "y"), ["z", "last"]);
    // The nodes are in topological order.
    let mut known: Vec<&str> = graph.initializer.iter().map(|t| &*t.name).collect();
    known.push("image");
    for node in &graph.node {
        for input in &node.input {
            assert!(known.contains(&&**input), "{input} of {}", node.output[0]);
        }
        known.push(&node.output[0]);
    }
}

#[test]
fn scales_cover_zero_and_the_observed_range() {
    let mut graph = graph();
    let plan = plan(&graph).unwrap();
    let ranges = ranges(&plan);
    quantize(&mut graph, &plan, &ranges).unwrap();
    let scale = |name: &str| values(stored(&graph, &format!("{name}/scale"))).unwrap()[0];
    let zero = |name: &str| {
        let tensor = stored(&graph, &format!("{name}/zero"));
        assert_eq!((tensor.data_type, tensor.dims.len()), (UINT8, 0));
        tensor.raw_data[0]
    };
    for (name, step, origin) in [
        ("image", 2.0 / 255.0, 128),
        ("r", 0.01, 0),
        // A max pooling has the scale of its input.
        ("p", 0.01, 0),
        ("b", 0.02, 150),
        ("s", 1.0, 0),
    ] {
        assert!((scale(name) - step).abs() < 1e-6, "{name}: {}", scale(name));
        assert_eq!(zero(name), origin, "{name}");
    }
}

#[test]
fn weights_have_a_scale_for_each_output() {
    let mut graph = graph();
    let plan = plan(&graph).unwrap();
    let ranges = ranges(&plan);
    quantize(&mut graph, &plan, &ranges).unwrap();
    let numbers = |name: &str| values(stored(&graph, name)).unwrap();
    // 1 2 3 and 4 5 6: the largest value of each filter becomes 127.
    let integers = stored(&graph, "w/quantized");
    assert_eq!(integers.data_type, INT8);
    assert_eq!(*integers.raw_data, [42, 85, 127, 85, 106, 127]);
    assert_eq!(numbers("w/scale"), [3.0 / 127.0, 6.0 / 127.0]);
    // A dense layer's weights are [inputs, outputs]: 1 2 3 4 and 5 6 7 8.
    assert_eq!(
        *stored(&graph, "hidden/quantized").raw_data,
        [25, 42, 54, 64, 127, 127, 127, 127]
    );
    let bias = stored(&graph, "wb/quantized");
    assert_eq!(bias.data_type, INT32);
    let (steps, _) = bias.raw_data.as_chunks::<4>();
    let scales = numbers("wb/scale");
    for ((steps, scale), expected) in steps.iter().zip(scales).zip([0.5, -1.0]) {
        let found = i32::from_le_bytes(*steps) as f32 * scale;
        assert!(
            (found - expected).abs() <= scale / 2.0,
            "{found} {expected}"
        );
    }
}

#[test]
fn keeps_a_bias_much_larger_than_its_weights() {
    let mut tiny = weight("w", &[2, 3, 1, 1]);
    set_values(&mut tiny, &[1e-12, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let mut graph = GraphBuilder::new()
        .weight(tiny)
        .weight(vector("wb", &[0.5, -7.0]))
        .node("Conv", &["image", "w", "wb"], "y")
        .graph("y");
    let plan = plan(&graph).unwrap();
    quantize(&mut graph, &plan, &[(-1.0, 1.0), (-8.0, 1.0)]).unwrap();
    let (steps, _) = stored(&graph, "wb/quantized").raw_data.as_chunks::<4>();
    let scales = values(stored(&graph, "wb/scale")).unwrap();
    for ((steps, scale), expected) in steps.iter().zip(scales).zip([0.5, -7.0]) {
        let found = i32::from_le_bytes(*steps) as f32 * scale;
        assert!((found - expected).abs() < 1e-5, "{found} {expected}");
    }
}

#[test]
fn scales_transposed_weights_by_row() {
    let mut graph = GraphBuilder::new()
        .weight(weight("hidden", &[2, 3]))
        .weight(weight("last", &[2, 5]))
        .node("Gemm", &["image", "hidden"], "h")
        .with(with_int("transB", 1))
        .node("MatMul", &["h", "last"], "y")
        .graph("y");
    let plan = plan(&graph).unwrap();
    quantize(&mut graph, &plan, &[(0.0, 1.0)]).unwrap();
    let scales = values(stored(&graph, "hidden/scale")).unwrap();
    assert_eq!(scales, [3.0 / 127.0, 6.0 / 127.0]);
}

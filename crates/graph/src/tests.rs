//! Builder for small graphs, and tests of reading and surgery.

use std::time::{Duration, Instant};

use super::attributes::{float, ints, set_float, set_int, set_ints};
use super::network::Network;
use super::surgery::{Filter, burn_momentum, prune, share_strides, widen_filters};
use super::tensor::set_values;
use super::{
    AttributeType, GraphError, GraphProto, Message, ModelProto, NodeProto, TensorProto,
    ValueInfoProto, read_bytes,
};

/// Builds small graphs with the input `image`.
pub struct GraphBuilder(GraphProto);

impl GraphBuilder {
    pub fn new() -> Self {
        let mut graph = GraphProto::new();
        graph.input.push(ValueInfoProto::new());
        graph.input[0].name = "image".into();
        Self(graph)
    }

    /// Adds a node named `/` + `output`.
    pub fn node(mut self, op: &str, inputs: &[&str], output: &str) -> Self {
        let mut node = NodeProto::new();
        node.op_type = op.into();
        node.name = format!("/{output}");
        node.input = inputs.iter().map(ToString::to_string).collect();
        node.output.push(output.into());
        self.0.node.push(node);
        self
    }

    /// Sets an attribute of the last node.
    pub fn with(mut self, set: impl FnOnce(&mut NodeProto)) -> Self {
        set(self.0.node.last_mut().unwrap());
        self
    }

    pub fn weight(mut self, tensor: TensorProto) -> Self {
        self.0.initializer.push(tensor);
        self
    }

    /// Declares the image as `[1, 8, 8, 3]`.
    pub fn channels_last(mut self) -> Self {
        let shape = self.0.input[0].type_.mut_or_insert_default();
        let shape = shape.mut_tensor_type().shape.mut_or_insert_default();
        for length in [1, 8, 8, 3] {
            shape.dim.push(<_>::default());
            shape.dim.last_mut().unwrap().set_dim_value(length);
        }
        self
    }

    pub fn graph(mut self, output: &str) -> GraphProto {
        self.0.output.push(ValueInfoProto::new());
        self.0.output[0].name = output.into();
        self.0
    }
}

pub fn with_int(name: &'static str, value: i64) -> impl FnOnce(&mut NodeProto) {
    move |node| set_int(node, name, value)
}

pub fn with_ints(name: &'static str, values: &[i64]) -> impl FnOnce(&mut NodeProto) {
    let values = values.to_vec();
    move |node| set_ints(node, name, &values)
}

pub fn with_string(name: &'static str, value: &'static str) -> impl FnOnce(&mut NodeProto) {
    move |node| {
        set_int(node, name, 0);
        let attribute = node.attribute.last_mut().unwrap();
        attribute.type_ = AttributeType::STRING.into();
        attribute.s = value.as_bytes().to_vec().into();
    }
}

/// A weight with the values 1, 2, 3, …
pub fn weight(name: &str, dims: &[i64]) -> TensorProto {
    let count = dims.iter().product::<i64>();
    let values: Vec<f32> = (1..=count).map(|value| value as f32).collect();
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = dims.to_vec();
    set_values(&mut tensor, &values);
    tensor
}

pub fn constant_ints(name: &str, values: &[i64]) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = vec![values.len() as i64];
    tensor.data_type = 7;
    tensor.int64_data = values.to_vec();
    tensor
}

/// A convolution, its BatchNorm, and a classifier on the pooled result.
fn model() -> ModelProto {
    let mut model = ModelProto::new();
    model.opset_import.push(<_>::default());
    model.opset_import[0].version = 17;
    let mut builder = GraphBuilder::new()
        .weight(weight("w", &[2, 3, 1, 1]))
        .weight(weight("fc", &[5, 2]));
    for name in ["s", "b", "m", "v"] {
        builder = builder.weight(weight(name, &[2]));
    }
    *model.graph.mut_or_insert_default() = builder
        .node("Conv", &["image", "w"], "a")
        .node("BatchNormalization", &["a", "s", "b", "m", "v"], "n")
        .node("GlobalAveragePool", &["n"], "p")
        .node("Flatten", &["p"], "f")
        .node("Gemm", &["f", "fc"], "logits")
        .graph("logits");
    model
}

fn rejection(edit: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = model();
    edit(&mut model);
    read_bytes(&model.write_to_bytes().unwrap())
        .expect_err("it must be refused")
        .to_string()
}

#[test]
fn refuses_invalid_graphs_by_name() {
    let nodes = |model: &mut ModelProto, edit: &dyn Fn(&mut Vec<NodeProto>)| {
        edit(&mut model.graph.mut_or_insert_default().node);
    };
    let cycle = rejection(|m| nodes(m, &|nodes| nodes[0].input[0] = "n".into()));
    assert!(cycle.contains("depends on itself"), "{cycle}");
    let identity = || {
        GraphBuilder::new()
            .node("Identity", &["x"], "x")
            .0
            .node
            .remove(0)
    };
    let identity = rejection(|m| nodes(m, &|nodes| nodes.push(identity())));
    assert!(identity.contains("depends on itself"), "{identity}");
    let undefined = rejection(|m| nodes(m, &|nodes| nodes[1].input[1] = "gone".into()));
    assert!(undefined.contains("nothing defines `gone`"), "{undefined}");
    let twice = rejection(|m| nodes(m, &|nodes| nodes[1].output[0] = "a".into()));
    assert!(twice.contains("`a` is defined twice"), "{twice}");
    for opset in [0, 8, 99] {
        let message = rejection(|m| m.opset_import[0].version = opset);
        assert!(
            message.contains(&format!("operator set {opset}")),
            "{message}"
        );
    }
    assert!(matches!(
        read_bytes(&[8, 8, 58]),
        Err(GraphError::NotOnnx(_))
    ));
    assert!(matches!(read_bytes(&[]), Err(GraphError::NotOnnx(_))));
}

#[test]
fn nested_concats_have_bounded_inputs() {
    let mut builder = GraphBuilder::new().node("Concat", &["image", "image"], "c0");
    for level in 1..64 {
        let (before, after) = (format!("c{}", level - 1), format!("c{level}"));
        builder = builder.node("Concat", &[&before, &before], &after);
    }
    let graph = builder.graph("c63");
    let network = Network::new(&graph).unwrap();
    assert!(network.layers.iter().all(|layer| layer.inputs.len() < 300));
    assert_eq!(network.layers[2].inputs.len(), 8);
}

#[test]
fn prunes_in_linear_time_for_any_order() {
    let mut builder = GraphBuilder::new().weight(weight("unused", &[1]));
    for index in (0..50_000).rev() {
        let (before, after) = (format!("r{index}"), format!("r{}", index + 1));
        builder = builder.node("Relu", &[&before], &after);
    }
    let mut graph = builder
        .node("Relu", &["r7"], "aside")
        .node("Add", &["image", "unused"], "apart")
        .graph("r50000");
    let started = Instant::now();
    prune(&mut graph);
    assert_eq!((graph.node.len(), graph.initializer.len()), (50_000, 0));
    // A quadratic walk takes minutes.
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn widens_filters_in_any_order() {
    // Two filters of three channels, two values each.
    let filters: Vec<f32> = (1_u8..=12).map(f32::from).collect();
    let channels = [
        Filter::Blue,
        Filter::Zero,
        Filter::Red,
        Filter::Green,
        Filter::Mean,
    ];
    assert_eq!(
        widen_filters(&filters, 2, &channels),
        [
            5.0, 6.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, //
            11.0, 12.0, 0.0, 0.0, 7.0, 8.0, 9.0, 10.0, 9.0, 10.0
        ]
    );
}

#[test]
fn converts_momentum_and_its_default() {
    for (given, expected) in [(None, 0.1), (Some(0.99), 0.01)] {
        let mut model = model();
        let graph = model.graph.mut_or_insert_default();
        if let Some(given) = given {
            set_float(&mut graph.node[1], "momentum", given);
        }
        burn_momentum(graph);
        assert!((float(&graph.node[1], "momentum", 0.0) - expected).abs() < 1e-6);
    }
}

#[test]
fn convolutions_of_equal_strides_share_a_pooling() {
    let strided = |graph: GraphBuilder, output, weight| {
        graph
            .node("Conv", &["image", weight], output)
            .with(with_ints("strides", &[2, 2]))
    };
    let graph = GraphBuilder::new()
        .weight(weight("w", &[2, 3, 1, 1]))
        .weight(weight("v", &[2, 3, 1, 1]))
        .weight(weight("wide", &[2, 3, 3, 3]));
    let graph = strided(graph, "a", "w");
    let graph = strided(graph, "b", "v");
    let mut graph = strided(graph, "c", "wide").graph("c");
    share_strides(&mut graph);
    let nodes: Vec<_> = graph
        .node
        .iter()
        .map(|node| (node.op_type.as_str(), ints(node, "strides", &[])))
        .collect();
    let expected = [
        ("MaxPool", vec![2, 2]),
        ("Conv", vec![1, 1]),
        ("Conv", vec![1, 1]),
        ("Conv", vec![2, 2]),
    ];
    assert_eq!(nodes, expected);
    assert_eq!(graph.node[1].input[0], graph.node[0].output[0]);
    assert_eq!(graph.node[3].input[0], "image");
}

//! Hostile graphs, and patches on graphs small enough to see through.

use onnx_ir::{AttributeProto, AttributeType, Message, ValueInfoProto};

use super::surgery::{Stem, burn_momentum, drop_classifier, widen_filters};
use super::tensor::{numel, set_values, values};
use super::view::float;
use super::{GraphError, ModelProto, NodeProto, TensorProto, read_bytes};

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = op.into();
    node.name = format!("/{output}");
    node.input = inputs.iter().map(ToString::to_string).collect();
    node.output.push(output.into());
    node
}

fn weight(name: &str, dims: &[i64]) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = dims.to_vec();
    let count = dims.iter().product::<i64>() as usize;
    set_values(&mut tensor, &vec![1.0; count]);
    tensor
}

/// A convolution, its BatchNorm, and a classifier on the pooled result.
fn model() -> ModelProto {
    let mut model = ModelProto::new();
    model.opset_import.push(<_>::default());
    model.opset_import[0].version = 17;
    let graph = model.graph.mut_or_insert_default();
    graph.node = vec![
        node("Conv", &["image", "w"], "a"),
        node("BatchNormalization", &["a", "s", "b", "m", "v"], "n"),
        node("GlobalAveragePool", &["n"], "p"),
        node("Flatten", &["p"], "f"),
        node("Gemm", &["f", "fc"], "logits"),
    ];
    graph.initializer = ["s", "b", "m", "v"].map(|name| weight(name, &[2])).to_vec();
    graph.initializer.push(weight("w", &[2, 3, 1, 1]));
    graph.initializer.push(weight("fc", &[5, 2]));
    for (list, name) in [(&mut graph.input, "image"), (&mut graph.output, "logits")] {
        let mut value = ValueInfoProto::new();
        value.name = name.into();
        list.push(value);
    }
    model
}

fn refused(edit: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = model();
    edit(&mut model);
    read_bytes(&model.write_to_bytes().unwrap())
        .expect_err("it must be refused")
        .to_string()
}

#[test]
fn broken_graphs_are_refused_by_name() {
    let nodes = |model: &mut ModelProto, edit: &dyn Fn(&mut Vec<NodeProto>)| {
        edit(&mut model.graph.mut_or_insert_default().node);
    };
    let cycle = refused(|m| nodes(m, &|nodes| nodes[0].input[0] = "n".into()));
    assert!(cycle.contains("depends on itself"), "{cycle}");
    let identity = refused(|m| nodes(m, &|nodes| nodes.push(node("Identity", &["x"], "x"))));
    assert!(identity.contains("depends on itself"), "{identity}");
    let undefined = refused(|m| nodes(m, &|nodes| nodes[1].input[1] = "gone".into()));
    assert!(undefined.contains("nothing defines `gone`"), "{undefined}");
    let twice = refused(|m| nodes(m, &|nodes| nodes[1].output[0] = "a".into()));
    assert!(twice.contains("`a` is defined twice"), "{twice}");
    for opset in [0, 8, 99] {
        let message = refused(|m| m.opset_import[0].version = opset);
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
fn tensors_that_lie_are_refused() {
    let mut tensor = weight("w", &[2, 3]);
    tensor.dims = vec![1 << 31, 1 << 31, 1 << 31];
    assert!(
        numel(&tensor)
            .unwrap_err()
            .to_string()
            .contains("impossible")
    );
    tensor.dims = vec![-6];
    assert!(numel(&tensor).is_err());
    tensor.dims = vec![7];
    let short = values(&tensor).unwrap_err().to_string();
    assert!(
        short.contains("`w`") && short.contains("needs 7 values"),
        "{short}"
    );
    set_values(&mut tensor, &[1.0, 2.0, f32::NAN, 4.0, 5.0, 6.0, 7.0]);
    assert!(
        values(&tensor)
            .unwrap_err()
            .to_string()
            .contains("value 2 is NaN")
    );
    tensor.data_type = 10;
    assert!(
        values(&tensor)
            .unwrap_err()
            .to_string()
            .contains("not float32")
    );
}

#[test]
fn the_classifier_goes_and_nothing_else() {
    let mut model = model();
    let graph = model.graph.mut_or_insert_default();
    drop_classifier(graph).unwrap();
    let left: Vec<&str> = graph
        .node
        .iter()
        .map(|node| node.op_type.as_str())
        .collect();
    assert_eq!(left, ["Conv", "BatchNormalization"]);
    assert_eq!(graph.output[0].name, "n");
    assert!(graph.initializer.iter().all(|tensor| tensor.name != "fc"));
}

#[test]
fn a_patch_that_cannot_be_applied_leaves_the_graph_as_it_was() {
    let mut model = model();
    let graph = model.graph.mut_or_insert_default();
    graph.node[3] = node("LSTM", &["p"], "f");
    let before = graph.clone();
    let message = drop_classifier(graph).unwrap_err().to_string();
    assert!(
        message.contains("LSTM") && message.contains("/f"),
        "{message}"
    );
    assert_eq!(*graph, before);
}

#[test]
fn the_new_filter_is_zero_red_or_mean_and_the_old_ones_stay() {
    // Two filters of three channels, two values each.
    let filters: Vec<f32> = (1_u8..=12).map(f32::from).collect();
    for (stem, first, second) in [
        (Stem::Zero, [0.0, 0.0], [0.0, 0.0]),
        (Stem::Red, [1.0, 2.0], [7.0, 8.0]),
        (Stem::Mean, [3.0, 4.0], [9.0, 10.0]),
    ] {
        let widened = widen_filters(&filters, 2, 4, stem);
        assert_eq!(widened[..6], filters[..6]);
        assert_eq!(widened[6..8], first);
        assert_eq!(widened[8..14], filters[6..]);
        assert_eq!(widened[14..], second);
    }
}

#[test]
fn momentum_changes_its_meaning_and_a_missing_one_is_the_default() {
    for (given, expected) in [(None, 0.1), (Some(0.99), 0.01)] {
        let mut model = model();
        let graph = model.graph.mut_or_insert_default();
        if let Some(given) = given {
            let mut attribute = AttributeProto::new();
            attribute.name = "momentum".into();
            attribute.type_ = AttributeType::FLOAT.into();
            attribute.f = given;
            graph.node[1].attribute.push(attribute);
        }
        burn_momentum(graph);
        assert!((float(&graph.node[1], "momentum", 0.0) - expected).abs() < 1e-6);
    }
}

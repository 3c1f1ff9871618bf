//! Removes the classifier after the last feature map.

use crate::attributes::ints;
use crate::surgery::prune;
use crate::tensor;
use crate::view::GraphView;
use crate::{GraphError, GraphProto, NodeProto};

const PATCH: &str = "dropping the classifier";

/// Cuts the graph after its last feature map `[N, C, h, w]`, without global pooling and classifier.
///
/// The graph may also end in pooled features or in the feature map.
///
/// # Errors
///
/// An unexpected operator is between the first output and global pooling.
pub fn drop_classifier(graph: &mut GraphProto) -> Result<(), GraphError> {
    let features = features(graph)?;
    graph.output.truncate(1);
    graph.output[0].name = features;
    graph.output[0].type_.clear();
    prune(graph);
    Ok(())
}

/// Returns the name of the last feature map.
fn features(graph: &GraphProto) -> Result<String, GraphError> {
    let view = GraphView::new(graph)?;
    let output = graph.output.first().map_or("", |o| o.name.as_str());
    let mut name = output;
    // True after an operator that occurs in classifiers only; a sum may also end a feature map.
    let mut in_classifier = false;
    for _ in 0..graph.node.len() {
        let Some(node) = view.producer(name).map(|index| &graph.node[index]) else {
            break;
        };
        let input = data_input(node, &view);
        match node.op_type.as_str() {
            "GlobalAveragePool" => return Ok(view.resolve(input).to_owned()),
            "ReduceMean" if spatial(node, &view) => return Ok(view.resolve(input).to_owned()),
            "AveragePool" if in_classifier => return Ok(view.resolve(input).to_owned()),
            "Gemm" | "MatMul" | "Flatten" | "Reshape" | "Squeeze" | "Softmax" | "LogSoftmax" => {
                in_classifier = true;
            }
            "Add" | "Sigmoid" | "Transpose" => {}
            _ if !in_classifier => return Ok(output.to_owned()),
            other => {
                return Err(refuse(format!(
                    "found {other} (node `{}`) between the output `{output}` and global pooling",
                    node.name
                )));
            }
        }
        name = input;
    }
    Err(refuse(format!(
        "there is no global pooling before the output `{output}`"
    )))
}

fn refuse(reason: String) -> GraphError {
    GraphError::Patch {
        patch: PATCH,
        reason,
    }
}

/// Returns the first input that is not stored; the bias of `Add` may come first.
fn data_input<'a>(node: &'a NodeProto, view: &GraphView<'a>) -> &'a str {
    let mut inputs = node.input.iter().map(String::as_str);
    inputs
        .find(|name| view.tensor(name).is_none())
        .unwrap_or("")
}

/// Returns whether a mean is over height and width.
fn spatial(node: &NodeProto, view: &GraphView) -> bool {
    let stored = node.input.get(1).and_then(|name| view.tensor(name));
    let axes = stored.and_then(|tensor| tensor::ints(tensor).ok());
    let mut axes = axes.unwrap_or_else(|| ints(node, "axes", &[]));
    for axis in axes.iter_mut().filter(|axis| (-4..0).contains(*axis)) {
        *axis += 4;
    }
    axes.sort_unstable();
    axes == [2, 3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{GraphBuilder, constant_ints, weight, with_ints};

    fn network() -> GraphBuilder {
        GraphBuilder::new()
            .weight(weight("w", &[2, 3, 1, 1]))
            .weight(weight("fc", &[2, 5]))
            .weight(weight("bias", &[5]))
            .weight(constant_ints("axes", &[-1, -2]))
            .node("Conv", &["image", "w"], "conv")
            .node("Relu", &["conv"], "features")
    }

    fn left(mut graph: GraphProto) -> (Vec<String>, String) {
        drop_classifier(&mut graph).unwrap();
        let ops = graph.node.iter().map(|node| node.op_type.clone()).collect();
        assert!(graph.initializer.iter().all(|tensor| tensor.name == "w"));
        (ops, graph.output[0].name.clone())
    }

    #[test]
    fn cuts_every_kind_of_classifier_at_the_feature_map() {
        let ends = [
            network()
                .node("GlobalAveragePool", &["features"], "p")
                .graph("p"),
            network()
                .node("ReduceMean", &["features", "axes"], "p")
                .node("MatMul", &["p", "fc"], "m")
                .node("Add", &["bias", "m"], "logits")
                .node("Softmax", &["logits"], "y")
                .graph("y"),
            network()
                .node("AveragePool", &["features"], "p")
                .node("Flatten", &["p"], "f")
                .node("Gemm", &["f", "fc"], "y")
                .graph("y"),
            network().graph("features"),
        ];
        for graph in ends {
            let expected = (
                vec!["Conv".to_owned(), "Relu".into()],
                "features".to_owned(),
            );
            assert_eq!(left(graph), expected);
        }
    }

    #[test]
    fn refuses_unexpected_operators_and_keeps_the_graph() {
        let mean = network()
            .node("ReduceMean", &["features"], "p")
            .with(with_ints("axes", &[1]))
            .node("Flatten", &["p"], "y");
        let recurrent = network()
            .node("LSTM", &["features"], "l")
            .node("Gemm", &["l", "fc"], "y");
        for (mut graph, found) in [
            (mean.graph("y"), "ReduceMean"),
            (recurrent.graph("y"), "LSTM"),
        ] {
            let before = graph.clone();
            let message = drop_classifier(&mut graph).unwrap_err().to_string();
            assert!(message.contains(found), "{message}");
            assert_eq!(graph, before);
        }
    }
}

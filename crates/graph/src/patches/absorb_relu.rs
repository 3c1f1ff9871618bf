//! Merges ReLU into the BatchNorm before it, for code generation.

use std::collections::{HashMap, HashSet};

use crate::GraphProto;
use crate::surgery::remove_nodes;
use crate::view::readers;

/// Removes every `Relu` that alone reads a `BatchNormalization`; returns the scale names of the
/// BatchNorm layers that must apply it.
///
/// The remaining ONNX graph computes something else; the generated code applies the ReLU.
pub fn absorb_relu(graph: &mut GraphProto) -> HashSet<String> {
    let readers = readers(graph);
    let norms: HashMap<&str, usize> = graph
        .node
        .iter()
        .enumerate()
        .filter(|(_, node)| node.op_type == "BatchNormalization" && node.input.len() > 1)
        .map(|(index, node)| (node.output[0].as_str(), index))
        .collect();
    let relus = graph.node.iter().enumerate();
    let absorbed: HashMap<usize, usize> = relus
        .filter(|(_, node)| node.op_type == "Relu")
        .filter_map(|(relu, node)| {
            let input = node.input.first()?.as_str();
            let norm = *norms.get(input)?;
            (readers[input].len() == 1).then_some((relu, norm))
        })
        .collect();
    let mut scales = HashSet::new();
    for (&relu, &norm) in &absorbed {
        graph.node[norm].output = std::mem::take(&mut graph.node[relu].output);
        scales.insert(graph.node[norm].input[1].clone());
    }
    remove_nodes(graph, |index| absorbed.contains_key(&index));
    scales
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::GraphBuilder;

    #[test]
    fn absorbs_only_a_relu_that_is_the_only_reader() {
        let mut graph = GraphBuilder::new()
            .node("BatchNormalization", &["image", "scale1"], "norm1")
            .node("Relu", &["norm1"], "relu1")
            .node("BatchNormalization", &["relu1", "scale2"], "norm2")
            .node("Relu", &["norm2"], "relu2")
            .node("Add", &["relu2", "norm2"], "sum")
            .node("Relu", &["sum"], "relu3")
            .graph("relu3");
        assert_eq!(
            absorb_relu(&mut graph),
            HashSet::from(["scale1".to_owned()])
        );
        let left: Vec<_> = graph
            .node
            .iter()
            .map(|node| node.output[0].as_str())
            .collect();
        assert_eq!(left, ["relu1", "norm2", "relu2", "sum", "relu3"]);
    }
}

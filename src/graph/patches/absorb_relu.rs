//! ReLU as a part of the normalisation before it.

use std::collections::{HashMap, HashSet};

use crate::graph::GraphProto;

/// Drops every `Relu` that alone reads a `BatchNormalization`, and returns the scales of the
/// layers that now have to do its work.
///
/// What is left is no longer the same network to a reader of ONNX; this is for generating code.
pub fn absorb_relu(graph: &mut GraphProto) -> HashSet<String> {
    let mut readers: HashMap<String, usize> = HashMap::new();
    let inputs = graph.node.iter().flat_map(|node| &node.input);
    for name in inputs.chain(graph.output.iter().map(|output| &output.name)) {
        *readers.entry(name.clone()).or_default() += 1;
    }
    let norms: HashMap<String, usize> = graph
        .node
        .iter()
        .enumerate()
        .filter(|(_, node)| node.op_type == "BatchNormalization" && node.input.len() > 1)
        .map(|(index, node)| (node.output[0].clone(), index))
        .collect();
    let mut absorbed = HashSet::new();
    let mut scales = HashSet::new();
    for relu in 0..graph.node.len() {
        let node = &graph.node[relu];
        let norm = node.input.first().and_then(|input| norms.get(input));
        if let ("Relu", Some(&norm)) = (node.op_type.as_str(), norm)
            && readers[&node.input[0]] == 1
        {
            graph.node[norm].output = std::mem::take(&mut graph.node[relu].output);
            scales.insert(graph.node[norm].input[1].clone());
            absorbed.insert(relu);
        }
    }
    let mut index = 0..;
    graph
        .node
        .retain(|_| !index.next().is_some_and(|index| absorbed.contains(&index)));
    scales
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::NodeProto;

    fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
        let mut node = NodeProto::new();
        node.op_type = op.into();
        node.input = inputs.iter().map(|&name| name.into()).collect();
        node.output = vec![output.into()];
        node
    }

    #[test]
    fn only_a_relu_that_reads_alone_is_absorbed() {
        let mut graph = GraphProto::new();
        graph.node = vec![
            node("BatchNormalization", &["image", "scale1"], "norm1"),
            node("Relu", &["norm1"], "relu1"),
            node("BatchNormalization", &["relu1", "scale2"], "norm2"),
            node("Relu", &["norm2"], "relu2"),
            node("Add", &["relu2", "norm2"], "sum"),
            node("Relu", &["sum"], "relu3"),
        ];
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

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

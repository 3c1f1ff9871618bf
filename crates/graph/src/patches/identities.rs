//! Removes nodes that return their input.

use std::collections::{HashMap, HashSet};

use crate::attributes::int;
use crate::tensor::{BFLOAT16, DOUBLE, FLOAT, FLOAT16};
use crate::view::GraphView;
use crate::{GraphError, GraphProto, NodeProto};

/// Element types of floats.
const FLOATS: [i32; 4] = [FLOAT, FLOAT16, DOUBLE, BFLOAT16];

/// Removes `Identity`, `Dropout`, casts between float types, and `Concat` of one value.
///
/// Exporters use `Identity` to store equal weights once. Casts are removed because the weights of
/// half-precision files are read as float32.
///
/// # Errors
///
/// A cycle.
pub(crate) fn inline_identities(graph: &mut GraphProto) -> Result<(), GraphError> {
    let order = GraphView::new(graph)?.order()?;
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let stored: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut source: HashMap<String, String> = HashMap::new();
    for index in order {
        let node = &graph.node[index];
        if let (true, Some(input), Some(output)) = (
            returns_input(node, &stored),
            node.input.first(),
            node.output.first(),
        ) {
            let first = source.get(input).unwrap_or(input).clone();
            source.insert(output.clone(), first);
        }
    }
    for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(first) = source.get(name) {
            name.clone_from(first);
        }
    }
    for output in &mut graph.output {
        if let Some(first) = source.get(&output.name) {
            output.name.clone_from(first);
        }
    }
    graph.node.retain(|node| {
        let gone = node
            .output
            .first()
            .is_some_and(|output| source.contains_key(output));
        !gone
            || node
                .output
                .iter()
                .skip(1)
                .any(|mask| outputs.contains(mask))
    });
    Ok(())
}

fn returns_input(node: &NodeProto, stored: &HashSet<&str>) -> bool {
    match node.op_type.as_str() {
        "Identity" | "Dropout" => true,
        "Concat" => node.input.len() == 1,
        // Casts of weights are left to constant folding, which respects the element type.
        "Cast" => {
            FLOATS
                .map(i64::from)
                .contains(&int(node, "to", FLOAT.into()))
                && node
                    .input
                    .first()
                    .is_some_and(|input| !stored.contains(input.as_str()))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{GraphBuilder, with_int};

    #[test]
    fn removes_chains_and_keeps_other_nodes() {
        let mut graph = GraphBuilder::new()
            .node("Identity", &["image"], "a")
            .node("Relu", &["a"], "b")
            .node("Dropout", &["b"], "c")
            .with(with_int("to", 10))
            .node("Cast", &["c"], "d")
            .with(with_int("to", 10))
            .node("Concat", &["d"], "e")
            .node("Concat", &["e", "b"], "f")
            .graph("f");
        inline_identities(&mut graph).unwrap();
        let left: Vec<_> = graph.node.iter().map(|n| n.op_type.as_str()).collect();
        assert_eq!(left, ["Relu", "Concat"]);
        assert_eq!(graph.node[0].input, ["image"]);
        assert_eq!(graph.node[1].input, ["b", "b"]);
    }

    #[test]
    fn keeps_a_cast_to_integers() {
        let mut graph = GraphBuilder::new()
            .node("Cast", &["image"], "a")
            .with(with_int("to", 7))
            .node("Relu", &["a"], "b")
            .graph("b");
        let before = graph.clone();
        inline_identities(&mut graph).unwrap();
        assert_eq!(graph, before);
    }

    #[test]
    fn renames_an_output_to_the_value_behind_it() {
        let mut graph = GraphBuilder::new()
            .node("Relu", &["image"], "a")
            .node("Identity", &["a"], "b")
            .graph("b");
        inline_identities(&mut graph).unwrap();
        assert_eq!(graph.output[0].name, "a");
        assert_eq!(graph.node.len(), 1);
    }
}

//! What of a graph becomes integers.

use std::collections::{HashMap, HashSet};

use crate::tensor::FLOAT;
use crate::view::{View, readers};
use crate::{GraphError, GraphProto, NodeProto};

/// Operators without weights that run in integers between those that have some.
const BETWEEN: [&str; 4] = ["Add", "Concat", "MaxPool", "AveragePool"];

/// What is to become integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizationPlan {
    /// Activations, by name.
    pub activations: Vec<String>,
    /// Convolutions and dense layers, by index.
    pub layers: Vec<usize>,
    /// Values that only move numbers of another: their range is that one's.
    moved: HashMap<String, String>,
}

/// Says what of `graph` is quantised: every convolution, and every dense layer but the last, whose
/// few weights decide the answer.
///
/// # Errors
///
/// A cycle, or a graph without a layer to quantise.
pub fn plan(graph: &GraphProto) -> Result<QuantizationPlan, GraphError> {
    let order = View::new(graph)?.order()?;
    let readers = readers(graph);
    let mut plan = QuantizationPlan {
        activations: Vec::new(),
        layers: layers(graph, &order, &readers)?,
        moved: HashMap::new(),
    };
    let seen = depends_on_image(graph, &order);
    let mut known = HashSet::new();
    for at in order {
        let node = &graph.node[at];
        let layer = plan.layers.contains(&at);
        let inputs: Vec<&String> = node
            .input
            .iter()
            .filter(|name| seen.contains(name.as_str()))
            .collect();
        let between = BETWEEN.contains(&node.op_type.as_str()) && inputs.len() == node.input.len();
        if !layer && !between {
            continue;
        }
        let mut add = |name: &str| {
            if known.insert(name.to_owned()) {
                plan.activations.push(name.into());
            }
        };
        for name in inputs {
            add(name);
        }
        // The product of a dense layer is read by its bias, which is added in float32.
        if matches!(node.op_type.as_str(), "MatMul" | "Gemm") {
            continue;
        }
        let output = activated(graph, &readers, &node.output[0]);
        add(output);
        if node.op_type == "MaxPool" {
            plan.moved.insert(output.into(), node.input[0].clone());
        }
    }
    Ok(plan)
}

/// The value after the ReLU that alone reads `output`, or `output`.
fn activated<'g>(
    graph: &'g GraphProto,
    readers: &HashMap<&str, Vec<usize>>,
    output: &'g str,
) -> &'g str {
    match readers.get(output).map(Vec::as_slice) {
        Some(&[only])
            if graph
                .node
                .get(only)
                .is_some_and(|node| node.op_type == "Relu") =>
        {
            &graph.node[only].output[0]
        }
        _ => output,
    }
}

/// Values that are computed from the image's numbers, not from its shape.
fn depends_on_image<'g>(graph: &'g GraphProto, order: &[usize]) -> HashSet<&'g str> {
    let stored: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let inputs = graph.input.iter().map(|input| input.name.as_str());
    let mut seen: HashSet<&str> = inputs.filter(|name| !stored.contains(name)).collect();
    for &at in order {
        let node = &graph.node[at];
        if node.op_type != "Shape" && node.input.iter().any(|name| seen.contains(name.as_str())) {
            seen.extend(node.output.iter().map(String::as_str));
        }
    }
    seen
}

/// The layers to quantise, in their order.
fn layers(
    graph: &GraphProto,
    order: &[usize],
    readers: &HashMap<&str, Vec<usize>>,
) -> Result<Vec<usize>, GraphError> {
    let floats = graph.initializer.iter().filter(|t| t.data_type == FLOAT);
    let stored: HashSet<&str> = floats.map(|tensor| tensor.name.as_str()).collect();
    // With a weight of its own: one that layers share would have to suit the biases of all.
    let weighted = |node: &NodeProto| {
        let own = |name: &&String| readers.get(name.as_str()).is_some_and(|all| all.len() == 1);
        let weight = node.input.get(1).filter(own);
        matches!(node.op_type.as_str(), "Conv" | "MatMul" | "Gemm")
            && weight.is_some_and(|name| stored.contains(name.as_str()))
    };
    let mut layers: Vec<usize> = order
        .iter()
        .copied()
        .filter(|&at| weighted(&graph.node[at]))
        .collect();
    if layers
        .last()
        .is_some_and(|&last| graph.node[last].op_type != "Conv")
    {
        layers.pop();
    }
    if layers.is_empty() {
        return Err(GraphError::Patch {
            patch: "quantising",
            reason: "there is no convolution or dense layer to quantise".into(),
        });
    }
    Ok(layers)
}

impl QuantizationPlan {
    /// The value whose range a value has.
    pub(super) fn origin<'p>(&'p self, name: &'p str) -> &'p str {
        let mut name = name;
        while let Some(from) = self.moved.get(name) {
            name = from;
        }
        name
    }
}

//! Selects the values and layers to quantize.

use std::collections::{HashMap, HashSet};

use crate::tensor::FLOAT;
use crate::view::{GraphView, readers};
use crate::{GraphError, GraphProto, NodeProto};

/// Operators without weights that run in integers between layers.
const PASS_THROUGH: [&str; 4] = ["Add", "Concat", "MaxPool", "AveragePool"];

/// Values and layers to quantize.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantizationPlan {
    /// Names of activations.
    pub activations: Vec<String>,
    /// Node indices of convolutions and dense layers.
    pub layers: Vec<usize>,
    /// Maps outputs of max poolings to their inputs, whose range they share.
    shared_ranges: HashMap<String, String>,
}

/// Selects every convolution and every dense layer but the last.
///
/// The last dense layer has few weights, and the outputs depend on it most.
///
/// # Errors
///
/// A cycle, or a graph without a layer to quantize.
pub fn plan(graph: &GraphProto) -> Result<QuantizationPlan, GraphError> {
    let order = GraphView::new(graph)?.order()?;
    let readers = readers(graph);
    let mut plan = QuantizationPlan {
        activations: Vec::new(),
        layers: layers(graph, &order, &readers)?,
        shared_ranges: HashMap::new(),
    };
    let image_values = depends_on_image(graph, &order);
    let mut added = HashSet::new();
    for at in order {
        let node = &graph.node[at];
        let layer = plan.layers.contains(&at);
        let inputs: Vec<&String> = node
            .input
            .iter()
            .filter(|name| image_values.contains(name.as_str()))
            .collect();
        let between =
            PASS_THROUGH.contains(&node.op_type.as_str()) && inputs.len() == node.input.len();
        if !layer && !between {
            continue;
        }
        let mut add = |name: &str| {
            if added.insert(name.to_owned()) {
                plan.activations.push(name.into());
            }
        };
        for name in inputs {
            add(name);
        }
        // The bias of a dense layer is added to the product in float32.
        if matches!(node.op_type.as_str(), "MatMul" | "Gemm") {
            continue;
        }
        let output = activated(graph, &readers, &node.output[0]);
        add(output);
        if node.op_type == "MaxPool" {
            plan.shared_ranges
                .insert(output.into(), node.input[0].clone());
        }
    }
    Ok(plan)
}

/// Returns the output of a ReLU that alone reads `output`, else `output`.
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

/// Returns the values that depend on the image's pixels, not only on its shape.
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

/// Returns the layers to quantize in topological order.
fn layers(
    graph: &GraphProto,
    order: &[usize],
    readers: &HashMap<&str, Vec<usize>>,
) -> Result<Vec<usize>, GraphError> {
    let floats = graph.initializer.iter().filter(|t| t.data_type == FLOAT);
    let stored: HashSet<&str> = floats.map(|tensor| tensor.name.as_str()).collect();
    // Shared weights are excluded: their scales would have to suit the biases of all layers.
    let weighted = |node: &NodeProto| {
        let exclusive =
            |name: &&String| readers.get(name.as_str()).is_some_and(|all| all.len() == 1);
        let weight = node.input.get(1).filter(exclusive);
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
            patch: "quantization",
            reason: "the graph has no convolution or dense layer to quantize".into(),
        });
    }
    Ok(layers)
}

impl QuantizationPlan {
    /// Returns the value whose range applies to `name`.
    pub(super) fn origin<'p>(&'p self, name: &'p str) -> &'p str {
        let mut name = name;
        while let Some(from) = self.shared_ranges.get(name) {
            name = from;
        }
        name
    }
}

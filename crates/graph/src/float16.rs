//! Converts a float32 graph to float16 storage and arithmetic.
//!
//! Inputs and outputs stay float32, with casts next to them. Some operators stay in float32 between
//! casts:
//!
//! - sums over a whole feature map, because float16 has 11 bits and a maximum of 65504;
//! - BatchNormalization that was not folded, because the variance may be below float16's resolution;
//! - the sigmoid, because float16 rounds probabilities near 1 to multiples of 0.0005.

use std::collections::{HashMap, HashSet};

use half::f16;

use super::attributes::{int, ints, set_int};
use super::tensor::{FLOAT, FLOAT16, set_half_values, values};
use super::view::GraphView;
use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// Operators that always stay in float32.
const FLOAT32_OPERATORS: [&str; 8] = [
    "BatchNormalization",
    "GlobalAveragePool",
    "ReduceMean",
    "ReduceSum",
    "Sigmoid",
    "Softmax",
    "Exp",
    "Pow",
];
/// Averages of more pixels stay in float32.
const MAX_AVERAGE_WINDOW: i64 = 16;
/// Operators with outputs of other types than float.
const INTEGER_OUTPUTS: [&str; 7] = [
    "Shape", "Size", "ArgMax", "NonZero", "Equal", "Less", "Greater",
];

/// Statistics of a conversion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Float16Conversion {
    /// Number of weights beyond ±65504, replaced by ±65504.
    pub clamped: usize,
    /// Operators that stay in float32, sorted.
    pub float32_operators: Vec<String>,
}

/// Element type of a value, as far as casts depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FloatKind {
    Half,
    Single,
    Other,
}

impl FloatKind {
    fn of(tensor: &TensorProto) -> Self {
        match tensor.data_type {
            FLOAT => Self::Single,
            FLOAT16 => Self::Half,
            _ => Self::Other,
        }
    }

    fn suffix(self) -> &'static str {
        if self == Self::Half { "half" } else { "single" }
    }
}

/// Converts `graph` to float16.
///
/// # Errors
///
/// A cycle or an invalid weight; the graph is unchanged.
pub fn to_float16(graph: &mut GraphProto) -> Result<Float16Conversion, GraphError> {
    let order = GraphView::new(graph)?.order()?;
    let mut rewriter = Float16Rewriter::new(graph);
    for at in order {
        rewriter.node(&graph.node[at]);
    }
    rewriter.outputs(graph);
    let (initializers, clamped) = rewriter.initializers(graph)?;
    let mut float32_operators: Vec<String> = rewriter.float32_operators.into_iter().collect();
    float32_operators.sort();
    graph.node = rewriter.nodes;
    graph.initializer = initializers;
    graph.value_info.clear();
    Ok(Float16Conversion {
        clamped,
        float32_operators,
    })
}

/// Collects the new nodes in topological order.
struct Float16Rewriter {
    nodes: Vec<NodeProto>,
    kinds: HashMap<String, FloatKind>,
    /// For each initializer, the types in which it is read.
    read_as: HashMap<String, HashSet<&'static str>>,
    /// Outputs of the casts that exist already.
    casts: HashSet<String>,
    float32_operators: HashSet<String>,
}

impl Float16Rewriter {
    fn new(graph: &GraphProto) -> Self {
        let mut kinds = HashMap::new();
        let mut read_as = HashMap::new();
        for input in &graph.input {
            let float = input.type_.tensor_type().elem_type == FLOAT;
            let kind = if float {
                FloatKind::Single
            } else {
                FloatKind::Other
            };
            kinds.insert(input.name.clone(), kind);
        }
        for tensor in &graph.initializer {
            kinds.insert(tensor.name.clone(), FloatKind::of(tensor));
            read_as.insert(tensor.name.clone(), HashSet::new());
        }
        Self {
            nodes: Vec::new(),
            kinds,
            read_as,
            casts: HashSet::new(),
            float32_operators: HashSet::new(),
        }
    }

    fn kind(&self, name: &str) -> FloatKind {
        self.kinds.get(name).copied().unwrap_or(FloatKind::Other)
    }

    /// Appends a node, with casts before it where its inputs have another type.
    fn node(&mut self, node: &NodeProto) {
        let mut node = node.clone();
        let floats = node
            .input
            .iter()
            .any(|name| self.kind(name) != FloatKind::Other);
        let result = match node.op_type.as_str() {
            "Constant" => node
                .attribute
                .first()
                .map_or(FloatKind::Other, |attribute| {
                    attribute.t.as_ref().map_or(FloatKind::Other, FloatKind::of)
                }),
            "Cast" if int(&node, "to", 0) == i64::from(FLOAT) => FloatKind::Single,
            "Cast" => FloatKind::Other,
            op if !floats || INTEGER_OUTPUTS.contains(&op) => FloatKind::Other,
            _ if stays_float32(&node) => FloatKind::Single,
            _ => FloatKind::Half,
        };
        let computes = floats && result != FloatKind::Other && node.op_type != "Cast";
        for name in node.input.iter_mut().filter(|_| computes) {
            if self.kind(name) != FloatKind::Other {
                *name = self.cast(name, result);
            }
        }
        if computes && result == FloatKind::Single {
            self.float32_operators.insert(node.op_type.clone());
        }
        for output in &node.output {
            self.kinds.insert(output.clone(), result);
        }
        self.nodes.push(node);
    }

    /// Returns the name of a value in the given type; appends a cast if needed.
    fn cast(&mut self, name: &str, kind: FloatKind) -> String {
        if let Some(read) = self.read_as.get_mut(name) {
            read.insert(kind.suffix());
            return format!("{name}/{}", kind.suffix());
        }
        if self.kind(name) == kind {
            return name.into();
        }
        let output = format!("{name}/{}", kind.suffix());
        if self.casts.insert(output.clone()) {
            self.nodes.push(cast(name, &output, kind));
        }
        output
    }

    /// Casts the graph outputs to float32 under their old names.
    fn outputs(&mut self, graph: &GraphProto) {
        for output in &graph.output {
            if self.kind(&output.name) != FloatKind::Half {
                continue;
            }
            let half = format!("{}/half", output.name);
            let names = self
                .nodes
                .iter_mut()
                .flat_map(|node| node.input.iter_mut().chain(&mut node.output));
            for name in names.filter(|name| **name == output.name) {
                name.clone_from(&half);
            }
            self.nodes
                .push(cast(&half, &output.name, FloatKind::Single));
        }
    }

    /// Returns the initializers in the types in which they are read, and the number of clamped
    /// values. An initializer that is read in one type keeps its name.
    fn initializers(
        &mut self,
        graph: &GraphProto,
    ) -> Result<(Vec<TensorProto>, usize), GraphError> {
        let mut kept_names = HashMap::new();
        let (mut tensors, mut clamped) = (Vec::new(), 0);
        for tensor in &graph.initializer {
            let kinds = &self.read_as[&tensor.name];
            if kinds.is_empty() {
                tensors.push(tensor.clone());
            }
            for &suffix in kinds {
                let mut converted = tensor.clone();
                let typed = format!("{}/{suffix}", tensor.name);
                if kinds.len() == 1 {
                    kept_names.insert(typed, tensor.name.clone());
                } else {
                    converted.name = typed;
                }
                if suffix == FloatKind::Half.suffix() {
                    clamped += store_half(&mut converted)?;
                }
                tensors.push(converted);
            }
        }
        for name in self.nodes.iter_mut().flat_map(|node| &mut node.input) {
            if let Some(kept) = kept_names.get(name) {
                name.clone_from(kept);
            }
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((tensors, clamped))
    }
}

/// Returns whether a node stays in float32.
fn stays_float32(node: &NodeProto) -> bool {
    let window = ints(node, "kernel_shape", &[]).iter().product::<i64>();
    FLOAT32_OPERATORS.contains(&node.op_type.as_str())
        || (node.op_type == "AveragePool" && window > MAX_AVERAGE_WINDOW)
}

fn cast(from: &str, to: &str, kind: FloatKind) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = "Cast".into();
    node.name = format!("{to}/cast");
    node.input.push(from.into());
    node.output.push(to.into());
    let number = if kind == FloatKind::Half {
        FLOAT16
    } else {
        FLOAT
    };
    set_int(&mut node, "to", number.into());
    node
}

/// Rounds a tensor to float16; returns the number of values out of range.
fn store_half(tensor: &mut TensorProto) -> Result<usize, GraphError> {
    let limit = f16::MAX.to_f32();
    let mut clamped = 0;
    let rounded: Vec<f16> = values(tensor)?
        .into_iter()
        .map(|value| {
            clamped += usize::from(value.abs() > limit);
            f16::from_f32(value.clamp(-limit, limit))
        })
        .collect();
    set_half_values(tensor, &rounded);
    Ok(clamped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::set_values;
    use crate::tests::{GraphBuilder, constant_ints, weight};

    fn typed(mut graph: GraphProto) -> GraphProto {
        let kind = graph.input[0].type_.mut_or_insert_default();
        kind.mut_tensor_type().elem_type = FLOAT;
        graph
    }

    fn ops(graph: &GraphProto) -> Vec<(&str, &str, &str)> {
        graph
            .node
            .iter()
            .map(|node| (&*node.op_type, &*node.input[0], &*node.output[0]))
            .collect()
    }

    #[test]
    fn inserts_casts_at_both_ends_and_around_float32_operators() {
        let mut graph = typed(
            GraphBuilder::new()
                .weight(weight("w", &[2, 3, 1, 1]))
                .weight(weight("fc", &[2, 5]))
                .weight(constant_ints("flat", &[-1, 2]))
                .node("Conv", &["image", "w"], "a")
                .node("Relu", &["a"], "r")
                .node("GlobalAveragePool", &["r"], "p")
                .node("Reshape", &["p", "flat"], "f")
                .node("MatMul", &["f", "fc"], "logits")
                .node("Sigmoid", &["logits"], "y")
                .graph("y"),
        );
        let conversion = to_float16(&mut graph).unwrap();
        assert_eq!(
            conversion.float32_operators,
            ["GlobalAveragePool", "Sigmoid"]
        );
        assert_eq!(
            ops(&graph),
            [
                ("Cast", "image", "image/half"),
                ("Conv", "image/half", "a"),
                ("Relu", "a", "r"),
                ("Cast", "r", "r/single"),
                ("GlobalAveragePool", "r/single", "p"),
                ("Cast", "p", "p/half"),
                ("Reshape", "p/half", "f"),
                ("MatMul", "f", "logits"),
                ("Cast", "logits", "logits/single"),
                ("Sigmoid", "logits/single", "y"),
            ]
        );
        let kinds: Vec<_> = graph
            .initializer
            .iter()
            .map(|tensor| (&*tensor.name, tensor.data_type))
            .collect();
        assert_eq!(kinds, [("fc", FLOAT16), ("flat", 7), ("w", FLOAT16)]);
    }

    #[test]
    fn casts_an_output_that_is_also_read_inside_under_its_name() {
        let mut graph = typed(
            GraphBuilder::new()
                .node("Relu", &["image"], "seen")
                .node("Neg", &["seen"], "y")
                .graph("y"),
        );
        graph.output.push(<_>::default());
        graph.output[1].name = "seen".into();
        to_float16(&mut graph).unwrap();
        assert_eq!(
            ops(&graph),
            [
                ("Cast", "image", "image/half"),
                ("Relu", "image/half", "seen/half"),
                ("Neg", "seen/half", "y/half"),
                ("Cast", "y/half", "y"),
                ("Cast", "seen/half", "seen"),
            ]
        );
    }

    #[test]
    fn stores_a_weight_in_each_type_in_which_it_is_read() {
        let mut graph = typed(
            GraphBuilder::new()
                .weight(weight("w", &[2]))
                .node("Add", &["image", "w"], "a")
                .node("Sigmoid", &["w"], "s")
                .node("Mul", &["a", "s"], "y")
                .graph("y"),
        );
        to_float16(&mut graph).unwrap();
        let kinds: Vec<_> = graph
            .initializer
            .iter()
            .map(|tensor| (&*tensor.name, tensor.data_type))
            .collect();
        assert_eq!(kinds, [("w/half", FLOAT16), ("w/single", FLOAT)]);
    }

    #[test]
    fn clamps_and_counts_values_out_of_range() {
        let mut tensor = weight("w", &[4]);
        set_values(&mut tensor, &[7e4, -1e30, 65504.0, 1e-9]);
        assert_eq!(store_half(&mut tensor).unwrap(), 2);
        let stored = values(&tensor).unwrap();
        assert_eq!(stored, [65504.0, -65504.0, 65504.0, 0.0]);
    }

    #[test]
    fn keeps_integers() {
        let mut graph = typed(
            GraphBuilder::new()
                .weight(constant_ints("zero", &[0]))
                .node("Shape", &["image"], "shape")
                .node("Gather", &["shape", "zero"], "batch")
                .node("Concat", &["batch", "batch"], "target")
                .node("Reshape", &["image", "target"], "y")
                .graph("y"),
        );
        to_float16(&mut graph).unwrap();
        let inputs = &graph
            .node
            .iter()
            .find(|n| n.op_type == "Reshape")
            .unwrap()
            .input;
        assert_eq!(*inputs, ["image/half", "target"]);
        let casts = graph.node.iter().filter(|n| n.op_type == "Cast");
        assert_eq!(casts.count(), 2);
    }
}

//! A float32 graph becomes one that stores and computes in float16.
//!
//! Inputs and outputs stay float32, with a cast at both ends. Some operators stay too, between
//! casts: those that add up a whole feature map (float16 has 11 bits, and ends at 65504),
//! BatchNormalization that no convolution took up (it divides by the root of a variance, which may
//! be far smaller than float16's step), and the last sigmoid, which would round probabilities
//! near 1 to steps of 0.0005.

use std::collections::{HashMap, HashSet};

use half::f16;

use super::attributes::{int, ints, set_int};
use super::tensor::{FLOAT, FLOAT16, set_half_values, values};
use super::view::View;
use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// The operators that stay in float32 wherever they are.
const SINGLE: [&str; 8] = [
    "BatchNormalization",
    "GlobalAveragePool",
    "ReduceMean",
    "ReduceSum",
    "Sigmoid",
    "Softmax",
    "Exp",
    "Pow",
];
/// An average of more pixels than this stays in float32.
const LARGEST_WINDOW: i64 = 16;
/// Operators whose output is no float, whatever they read.
const NO_FLOATS: [&str; 7] = [
    "Shape", "Size", "ArgMax", "NonZero", "Equal", "Less", "Greater",
];

/// What became of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halved {
    /// Weights that float16 cannot hold, now its largest or smallest number.
    pub clamped: usize,
    /// The operators that stayed in float32, sorted.
    pub kept: Vec<String>,
}

/// What a value is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CastKind {
    Half,
    Single,
    Other,
}

impl CastKind {
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

/// Turns `graph` into float16.
///
/// # Errors
///
/// A cycle, or a weight that is broken; the graph is as it was.
pub fn to_half(graph: &mut GraphProto) -> Result<Halved, GraphError> {
    let order = View::new(graph)?.order()?;
    let mut rewriting = Rewriting::new(graph);
    for at in order {
        rewriting.node(&graph.node[at]);
    }
    rewriting.outputs(graph);
    let (initializers, clamped) = rewriting.initializers(graph)?;
    let mut kept: Vec<String> = rewriting.kept.into_iter().collect();
    kept.sort();
    graph.node = rewriting.nodes;
    graph.initializer = initializers;
    graph.value_info.clear();
    Ok(Halved { clamped, kept })
}

/// The new nodes, in an order in which each comes after what it reads.
struct Rewriting {
    nodes: Vec<NodeProto>,
    kinds: HashMap<String, CastKind>,
    /// Stored tensors, and in which kinds they are read.
    stored: HashMap<String, HashSet<&'static str>>,
    /// Casts that are there already.
    casts: HashSet<String>,
    kept: HashSet<String>,
}

impl Rewriting {
    fn new(graph: &GraphProto) -> Self {
        let mut kinds = HashMap::new();
        let mut stored = HashMap::new();
        for input in &graph.input {
            let float = input.type_.tensor_type().elem_type == FLOAT;
            let kind = if float {
                CastKind::Single
            } else {
                CastKind::Other
            };
            kinds.insert(input.name.clone(), kind);
        }
        for tensor in &graph.initializer {
            kinds.insert(tensor.name.clone(), CastKind::of(tensor));
            stored.insert(tensor.name.clone(), HashSet::new());
        }
        Self {
            nodes: Vec::new(),
            kinds,
            stored,
            casts: HashSet::new(),
            kept: HashSet::new(),
        }
    }

    fn kind(&self, name: &str) -> CastKind {
        self.kinds.get(name).copied().unwrap_or(CastKind::Other)
    }

    /// Takes a node over, with casts before it where its inputs are of another kind.
    fn node(&mut self, node: &NodeProto) {
        let mut node = node.clone();
        let floats = node
            .input
            .iter()
            .any(|name| self.kind(name) != CastKind::Other);
        let result = match node.op_type.as_str() {
            "Constant" => node.attribute.first().map_or(CastKind::Other, |attribute| {
                attribute.t.as_ref().map_or(CastKind::Other, CastKind::of)
            }),
            "Cast" if int(&node, "to", 0) == i64::from(FLOAT) => CastKind::Single,
            "Cast" => CastKind::Other,
            op if !floats || NO_FLOATS.contains(&op) => CastKind::Other,
            _ if stays(&node) => CastKind::Single,
            _ => CastKind::Half,
        };
        let computes = floats && result != CastKind::Other && node.op_type != "Cast";
        for name in node.input.iter_mut().filter(|_| computes) {
            if self.kind(name) != CastKind::Other {
                *name = self.cast(name, result);
            }
        }
        if computes && result == CastKind::Single {
            self.kept.insert(node.op_type.clone());
        }
        for output in &node.output {
            self.kinds.insert(output.clone(), result);
        }
        self.nodes.push(node);
    }

    /// The name of a value in the given kind.
    fn cast(&mut self, name: &str, kind: CastKind) -> String {
        if let Some(read) = self.stored.get_mut(name) {
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

    /// Outputs of the graph are float32 under their old names.
    fn outputs(&mut self, graph: &GraphProto) {
        for output in &graph.output {
            if self.kind(&output.name) != CastKind::Half {
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
            self.nodes.push(cast(&half, &output.name, CastKind::Single));
        }
    }

    /// The stored tensors in the kinds in which they are read. One that is read in one kind keeps
    /// its name.
    fn initializers(
        &mut self,
        graph: &GraphProto,
    ) -> Result<(Vec<TensorProto>, usize), GraphError> {
        let mut kept_names = HashMap::new();
        let (mut tensors, mut clamped) = (Vec::new(), 0);
        for tensor in &graph.initializer {
            let kinds = &self.stored[&tensor.name];
            if kinds.is_empty() {
                tensors.push(tensor.clone());
            }
            for &suffix in kinds {
                let mut made = tensor.clone();
                let typed = format!("{}/{suffix}", tensor.name);
                if kinds.len() == 1 {
                    kept_names.insert(typed, tensor.name.clone());
                } else {
                    made.name = typed;
                }
                if suffix == CastKind::Half.suffix() {
                    clamped += store_half(&mut made)?;
                }
                tensors.push(made);
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

/// Whether a node computes in float32.
fn stays(node: &NodeProto) -> bool {
    let window = ints(node, "kernel_shape", &[]).iter().product::<i64>();
    SINGLE.contains(&node.op_type.as_str())
        || (node.op_type == "AveragePool" && window > LARGEST_WINDOW)
}

fn cast(from: &str, to: &str, kind: CastKind) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = "Cast".into();
    node.name = format!("{to}/cast");
    node.input.push(from.into());
    node.output.push(to.into());
    let number = if kind == CastKind::Half {
        FLOAT16
    } else {
        FLOAT
    };
    set_int(&mut node, "to", number.into());
    node
}

/// Rounds a tensor to float16; returns how many numbers were out of its range.
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
    use crate::tests::{Sketch, constant_ints, weight};

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
    fn casts_stand_at_both_ends_and_around_what_stays() {
        let mut graph = typed(
            Sketch::new()
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
        let halved = to_half(&mut graph).unwrap();
        assert_eq!(halved.kept, ["GlobalAveragePool", "Sigmoid"]);
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
    fn an_output_in_half_is_cast_under_its_name_and_still_read_inside() {
        let mut graph = typed(
            Sketch::new()
                .node("Relu", &["image"], "seen")
                .node("Neg", &["seen"], "y")
                .graph("y"),
        );
        graph.output.push(<_>::default());
        graph.output[1].name = "seen".into();
        to_half(&mut graph).unwrap();
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
    fn a_weight_that_is_read_both_ways_is_stored_both_ways() {
        let mut graph = typed(
            Sketch::new()
                .weight(weight("w", &[2]))
                .node("Add", &["image", "w"], "a")
                .node("Sigmoid", &["w"], "s")
                .node("Mul", &["a", "s"], "y")
                .graph("y"),
        );
        to_half(&mut graph).unwrap();
        let kinds: Vec<_> = graph
            .initializer
            .iter()
            .map(|tensor| (&*tensor.name, tensor.data_type))
            .collect();
        assert_eq!(kinds, [("w/half", FLOAT16), ("w/single", FLOAT)]);
    }

    #[test]
    fn what_half_cannot_hold_is_clamped_and_counted() {
        let mut tensor = weight("w", &[4]);
        set_values(&mut tensor, &[7e4, -1e30, 65504.0, 1e-9]);
        assert_eq!(store_half(&mut tensor).unwrap(), 2);
        let stored = values(&tensor).unwrap();
        assert_eq!(stored, [65504.0, -65504.0, 65504.0, 0.0]);
    }

    #[test]
    fn integers_are_left_alone() {
        let mut graph = typed(
            Sketch::new()
                .weight(constant_ints("zero", &[0]))
                .node("Shape", &["image"], "shape")
                .node("Gather", &["shape", "zero"], "batch")
                .node("Concat", &["batch", "batch"], "wanted")
                .node("Reshape", &["image", "wanted"], "y")
                .graph("y"),
        );
        to_half(&mut graph).unwrap();
        let read = &graph
            .node
            .iter()
            .find(|n| n.op_type == "Reshape")
            .unwrap()
            .input;
        assert_eq!(*read, ["image/half", "wanted"]);
        let casts = graph.node.iter().filter(|n| n.op_type == "Cast");
        assert_eq!(casts.count(), 2);
    }
}

//! Finds the weights of a skeleton in another graph of the same structure.
//!
//! Names and node order differ between exporters, so neither is used. Every node gets a signature
//! that covers its operator, its attributes (defaults filled in), the shapes of its weights and
//! the signatures of all that it reads. Equal signatures at the outputs mean equal networks; the
//! two graphs are then walked in step from the output, input by input, to pair the weights.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use super::tensor::{numel, values};
use super::view::{View, float, int, ints, string};
use super::{GraphError, GraphProto, NodeProto};

/// The first place where a graph is not the expected network.
#[derive(Debug, thiserror::Error)]
#[error("is not this network: expected {expected}; found {found}")]
pub struct Mismatch {
    /// What the skeleton has there.
    pub expected: String,
    /// What the file has there.
    pub found: String,
}

/// For each initializer of `skeleton`, the name of the initializer of `source` in its place.
///
/// Both graphs have one image input and one output, without `Identity` nodes.
///
/// # Errors
///
/// [`Mismatch`] names the first node, in the skeleton's order, that the source lacks.
pub fn match_weights(
    source: &GraphProto,
    skeleton: &GraphProto,
) -> Result<HashMap<String, String>, GraphError> {
    let (source, skeleton) = (Signed::new(source)?, Signed::new(skeleton)?);
    if source.output_signature() != skeleton.output_signature() {
        return Err(first_difference(&source, &skeleton).into());
    }
    let mut pairs = HashMap::new();
    let mut visited = HashSet::new();
    let mut stack = vec![(source.output_node(), skeleton.output_node())];
    while let Some((Some(in_source), Some(in_skeleton))) = stack.pop() {
        if !visited.insert((in_source, in_skeleton)) {
            continue;
        }
        for (theirs, ours) in source.paired_inputs(in_source, &skeleton, in_skeleton) {
            match (source.view.producer(theirs), skeleton.view.producer(ours)) {
                (Some(a), Some(b)) if source.view.tensor(theirs).is_none() => {
                    stack.push((Some(a), Some(b)));
                }
                _ if skeleton.view.tensor(ours).is_some() => {
                    pairs.insert(ours.to_owned(), theirs.to_owned());
                }
                _ => {}
            }
        }
    }
    Ok(pairs)
}

/// A graph with the signature of each of its nodes.
struct Signed<'a> {
    view: View<'a>,
    order: Vec<usize>,
    signatures: Vec<u64>,
}

impl<'a> Signed<'a> {
    fn new(graph: &'a GraphProto) -> Result<Self, GraphError> {
        let view = View::new(graph)?;
        let order = view.order()?;
        let mut signed = Self {
            view,
            order,
            signatures: vec![0; graph.node.len()],
        };
        for index in signed.order.clone() {
            signed.signatures[index] = signed.sign(index);
        }
        Ok(signed)
    }

    fn node(&self, index: usize) -> &'a NodeProto {
        &self.view.graph.node[index]
    }

    fn output_node(&self) -> Option<usize> {
        self.view
            .graph
            .output
            .first()
            .and_then(|output| self.view.producer(&output.name))
    }

    fn output_signature(&self) -> Option<u64> {
        self.output_node().map(|index| self.signatures[index])
    }

    fn sign(&self, index: usize) -> u64 {
        let node = self.node(index);
        let mut inputs: Vec<u64> = node
            .input
            .iter()
            .map(|name| self.sign_value(name))
            .collect();
        if commutes(node) {
            inputs.sort_unstable();
        }
        hash_of(&(describe_operator(node), inputs))
    }

    /// A weight is known by its shape, a scalar by its value, anything else by what makes it.
    fn sign_value(&self, name: &'a str) -> u64 {
        match (self.view.tensor(name), self.view.producer(name)) {
            (Some(tensor), _) if numel(tensor).is_ok_and(|count| count == 1) => {
                let value = values(tensor)
                    .ok()
                    .and_then(|v| v.first().copied())
                    .unwrap_or(0.0);
                hash_of(&("scalar", (f64::from(value) * 1e5).round() as i64))
            }
            (Some(tensor), _) => hash_of(&("weight", &tensor.dims)),
            (None, Some(producer)) => {
                let port = self
                    .node(producer)
                    .output
                    .iter()
                    .position(|o| o == name)
                    .unwrap_or_default();
                hash_of(&("node", port, self.signatures[producer]))
            }
            (None, None) => hash_of(&("image", name.is_empty())),
        }
    }

    /// Inputs of two nodes of equal signature, paired; those of a sum by signature.
    fn paired_inputs(
        &self,
        index: usize,
        other: &Signed<'a>,
        other_index: usize,
    ) -> Vec<(&'a str, &'a str)> {
        let sorted = |signed: &Signed<'a>, index: usize| {
            let node = signed.node(index);
            let mut inputs: Vec<&'a str> = node
                .input
                .iter()
                .map(|name| signed.view.resolve(name))
                .collect();
            if commutes(node) {
                inputs.sort_by_key(|name| signed.sign_value(name));
            }
            inputs
        };
        sorted(self, index)
            .into_iter()
            .zip(sorted(other, other_index))
            .collect()
    }

    /// A node as a person would name it, with the shapes of its weights.
    fn describe(&self, index: usize) -> String {
        let node = self.node(index);
        let shapes: Vec<String> = node
            .input
            .iter()
            .filter_map(|name| self.view.tensor(name))
            .take(1)
            .map(|tensor| format!(" with weights {:?}", tensor.dims))
            .collect();
        format!(
            "{}{} (node `{}`)",
            describe_operator(node),
            shapes.concat(),
            node.name
        )
    }
}

fn first_difference(source: &Signed, skeleton: &Signed) -> Mismatch {
    let known: HashSet<u64> = skeleton.signatures.iter().copied().collect();
    let present: HashSet<u64> = source.signatures.iter().copied().collect();
    let first = |signed: &Signed, shared: &HashSet<u64>| {
        signed.order.iter().copied().find(|&index| {
            signed.node(index).op_type != "Constant" && !shared.contains(&signed.signatures[index])
        })
    };
    let describe = |signed: &Signed, index: Option<usize>| {
        index.map_or("nothing more".to_owned(), |index| signed.describe(index))
    };
    Mismatch {
        expected: describe(skeleton, first(skeleton, &present)),
        found: describe(source, first(source, &known)),
    }
}

fn commutes(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "Add" | "Mul")
}

/// Operator and attributes, with the defaults of the ONNX specification filled in.
///
/// BatchNorm's momentum is left out: it says how a network was trained, not what it computes.
fn describe_operator(node: &NodeProto) -> String {
    let window = |kernel: bool| {
        let mut text = format!(
            "{} strides {:?} pads {:?} dilations {:?}",
            node.op_type,
            ints(node, "strides", &[1, 1]),
            ints(node, "pads", &[0, 0, 0, 0]),
            ints(node, "dilations", &[1, 1]),
        );
        if kernel {
            text += &format!(" kernel {:?}", ints(node, "kernel_shape", &[]));
        }
        if !matches!(string(node, "auto_pad", "NOTSET").as_str(), "NOTSET" | "") {
            text += &format!(" auto_pad {}", string(node, "auto_pad", ""));
        }
        text
    };
    match node.op_type.as_str() {
        "Conv" => format!("{} groups {}", window(false), int(node, "group", 1)),
        "MaxPool" => format!("{} ceil {}", window(true), int(node, "ceil_mode", 0)),
        "AveragePool" => format!(
            "{} ceil {} count_include_pad {}",
            window(true),
            int(node, "ceil_mode", 0),
            int(node, "count_include_pad", 0)
        ),
        "BatchNormalization" => {
            format!(
                "BatchNormalization epsilon {:.1e}",
                float(node, "epsilon", 1e-5)
            )
        }
        "Concat" => format!("Concat axis {}", int(node, "axis", 1)),
        other => other.to_owned(),
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

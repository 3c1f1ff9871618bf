//! Folds BatchNorm and constant factors into the preceding convolution.
//!
//! At inference a BatchNorm is a fixed scale and shift for each channel, and so is a product with a
//! constant. Both are folded into weights and bias of the convolution, in float64, rounded once.
//! The BatchNorm parameters are lost, so the result is for scoring only.

use std::collections::{HashMap, HashSet};

use super::affine::Affine;
use super::attributes::{float, int};
use super::network::BatchNormParameters;
use super::surgery::{prune, remove_nodes};
use super::tensor::{numel, set_values};
use super::view::{GraphView, readers};
use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// A convolution and the nodes that are folded into it.
struct Folding {
    conv: usize,
    filters: TensorProto,
    bias: TensorProto,
    /// Indices of the nodes that are removed.
    folded: Vec<usize>,
    /// Output of the last of them.
    output: String,
}

/// Folds each BatchNorm and each product with a scalar into the convolution before it, unless another
/// node reads the values between. Returns the number of removed nodes.
///
/// # Errors
///
/// A cycle or an invalid tensor; the graph is unchanged.
pub fn fold_into_convolutions(graph: &mut GraphProto) -> Result<usize, GraphError> {
    let foldings = {
        let view = GraphView::new(graph)?;
        let readers = readers(graph);
        let convolutions = (0..graph.node.len()).filter(|&at| graph.node[at].op_type == "Conv");
        let foldings = convolutions.map(|at| Folding::find(&view, &readers, at));
        let foldings: Result<Vec<_>, _> = foldings.filter_map(Result::transpose).collect();
        foldings?
    };
    let mut folded = HashSet::new();
    for folding in foldings {
        folded.extend(folding.folded);
        let conv = &mut graph.node[folding.conv];
        conv.output[0] = folding.output;
        conv.input.truncate(2);
        conv.input.push(folding.bias.name.clone());
        for tensor in [folding.filters, folding.bias] {
            match graph.initializer.iter_mut().find(|t| t.name == tensor.name) {
                Some(old) => *old = tensor,
                None => graph.initializer.push(tensor),
            }
        }
    }
    remove_nodes(graph, |at| folded.contains(&at));
    prune(graph);
    Ok(folded.len())
}

impl Folding {
    fn find(
        view: &GraphView,
        readers: &HashMap<&str, Vec<usize>>,
        conv: usize,
    ) -> Result<Option<Self>, GraphError> {
        let nodes = &view.graph.node;
        let exclusive = |name: Option<&String>| {
            let name = name.filter(|name| readers.get(name.as_str()).is_some_and(|r| r.len() == 1));
            name.and_then(|name| view.graph.initializer.iter().find(|t| t.name == *name))
        };
        let node = &nodes[conv];
        let Some(filters) = exclusive(node.input.get(1)) else {
            return Ok(None);
        };
        let bias = match node.input.get(2).filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => match exclusive(Some(name)) {
                None => return Ok(None),
                bias => bias,
            },
        };
        let mut affine = Affine::identity(filters.dims.first().map_or(0, |&dim| dim as usize));
        if let Some(bias) = bias {
            affine.apply(bias, |term| (1.0, term))?;
        }
        let (mut folded, mut output) = (Vec::new(), node.output[0].as_str());
        while let Some(&[next]) = readers.get(output).map(Vec::as_slice) {
            let Some(node) = nodes.get(next) else { break };
            if !append(&mut affine, node, output, view)? {
                break;
            }
            folded.push(next);
            output = &node.output[0];
        }
        if folded.is_empty() {
            return Ok(None);
        }
        // Not the name of BatchNorm's shift, which another layer may share.
        let name = bias.map_or(format!("{}/bias", filters.name), |bias| bias.name.clone());
        let (filters, bias) = fold(&affine, filters, name)?;
        Ok(Some(Self {
            conv,
            filters,
            bias,
            folded,
            output: output.to_owned(),
        }))
    }
}

/// Appends `node` to `affine` if it scales and shifts the channels of `input`; returns whether it
/// does.
fn append(
    affine: &mut Affine,
    node: &NodeProto,
    input: &str,
    view: &GraphView,
) -> Result<bool, GraphError> {
    let stored = |at: usize| node.input.get(at).and_then(|name| view.tensor(name));
    match node.op_type.as_str() {
        "BatchNormalization" if node.input[0] == input && int(node, "training_mode", 0) == 0 => {
            let [Some(gamma), Some(beta), Some(mean), Some(variance)] = [1, 2, 3, 4].map(stored)
            else {
                return Ok(false);
            };
            affine.batch_norm(&BatchNormParameters {
                parameters: [gamma, beta, mean, variance],
                epsilon: f64::from(float(node, "epsilon", 1e-5)),
            })?;
        }
        "Mul" => {
            let by = stored(usize::from(node.input[0] == input));
            let Some(by) = by.filter(|by| numel(by).is_ok_and(|count| count == 1)) else {
                return Ok(false);
            };
            affine.apply(by, |factor| (factor, 0.0))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Returns the scaled filters and the bias.
fn fold(
    affine: &Affine,
    filters: &TensorProto,
    bias_name: String,
) -> Result<(TensorProto, TensorProto), GraphError> {
    let mut scaled = filters.clone();
    set_values(&mut scaled, &affine.scaled(filters, 1.0)?);
    let mut bias = TensorProto::new();
    bias.name = bias_name;
    bias.dims = vec![affine.shift.len() as i64];
    let shift: Vec<f32> = affine.shift.iter().map(|&shift| shift as f32).collect();
    set_values(&mut bias, &shift);
    Ok((scaled, bias))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::values;
    use crate::tests::{GraphBuilder, weight};

    fn stored(graph: &GraphProto, name: &str) -> Vec<f32> {
        let tensor = graph.initializer.iter().find(|t| t.name == name).unwrap();
        values(tensor).unwrap()
    }

    fn normed() -> GraphBuilder {
        let mut builder = GraphBuilder::new().weight(weight("w", &[2, 3, 1, 1]));
        for name in ["s", "b", "m", "v"] {
            builder = builder.weight(weight(name, &[2]));
        }
        builder.node("Conv", &["image", "w"], "a").node(
            "BatchNormalization",
            &["a", "s", "b", "m", "v"],
            "n",
        )
    }

    #[test]
    fn folds_batch_norm_and_factor_into_the_convolution() {
        let mut half = weight("half", &[1]);
        set_values(&mut half, &[0.5]);
        let mut graph = normed()
            .weight(half)
            .node("Mul", &["n", "half"], "y")
            .node("Relu", &["y"], "z")
            .graph("z");
        assert_eq!(fold_into_convolutions(&mut graph).unwrap(), 2);
        let ops: Vec<_> = graph.node.iter().map(|node| &*node.op_type).collect();
        assert_eq!(ops, ["Conv", "Relu"]);
        assert_eq!(graph.node[0].input, ["image", "w", "w/bias"]);
        assert_eq!(graph.node[0].output, ["y"]);
        assert_eq!(graph.initializer.len(), 2);
        // γ, β, mean and variance are each 1 for the first channel and 2 for the second.
        let factor = [1.0, 2.0].map(|v: f64| v / (v + 1e-5_f64).sqrt() / 2.0);
        let filters = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0_f64];
        for (at, (found, before)) in stored(&graph, "w").iter().zip(filters).enumerate() {
            assert!((f64::from(*found) - before * factor[at / 3]).abs() < 1e-6);
        }
        for (channel, found) in stored(&graph, "w/bias").iter().enumerate() {
            let value = channel as f64 + 1.0;
            let expected = value / 2.0 - value * factor[channel];
            assert!(
                (f64::from(*found) - expected).abs() < 1e-6,
                "{found} {expected}"
            );
        }
    }

    #[test]
    fn keeps_values_that_other_nodes_read() {
        let shared = normed()
            .node("Relu", &["n"], "r")
            .node("Add", &["a", "r"], "y")
            .graph("y");
        let mut other = GraphBuilder::new()
            .weight(weight("half", &[2, 1, 1]))
            .weight(weight("w", &[2, 3, 1, 1]))
            .node("Conv", &["image", "w"], "a")
            .node("Mul", &["a", "half"], "y");
        let output = normed().graph("a");
        other = other.node("Conv", &["image", "w"], "b");
        for mut graph in [shared, output, other.graph("y")] {
            // Unused nodes are removed in any case.
            let mut before = graph.clone();
            prune(&mut before);
            assert_eq!(fold_into_convolutions(&mut graph).unwrap(), 0);
            assert_eq!(graph.node, before.node);
        }
    }
}

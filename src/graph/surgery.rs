//! Labelled patches. A patch that cannot be applied leaves the graph as it was and says why.

use std::collections::HashSet;

use onnx_ir::AttributeProto;
use onnx_ir::AttributeType;

use super::tensor::{FLOAT, numel, set_values, values};
use super::view::{View, float};
use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// Where the filters of a channel that the pretrained network never saw come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stem {
    /// All zero: the widened network answers as the original did, whatever the new channel holds.
    #[default]
    Zero,
    /// A copy of the first (red) channel's filters.
    Red,
    /// The mean of the three channels' filters.
    Mean,
}

/// Cuts the graph at its last feature map `[N, C, h, w]`: global pooling and classifier go.
///
/// # Errors
///
/// The graph does not end in global pooling, an optional flattening and one dense layer.
pub fn drop_classifier(graph: &mut GraphProto) -> Result<(), GraphError> {
    const PATCH: &str = "dropping the classifier";
    let features = {
        let view = View::new(graph)?;
        let output = graph
            .output
            .first()
            .map_or("", |output| output.name.as_str());
        let mut name = output;
        loop {
            let node = view.producer(name).map(|index| &graph.node[index]);
            let Some(node) = node else {
                return Err(GraphError::Patch {
                    patch: PATCH,
                    reason: format!("no global pooling stands before the output `{output}`"),
                });
            };
            let input = node.input.first().map_or("", String::as_str);
            match node.op_type.as_str() {
                "GlobalAveragePool" | "ReduceMean" => break view.resolve(input).to_owned(),
                "Gemm" | "MatMul" | "Add" | "Flatten" | "Reshape" | "Softmax" | "Dropout" => {
                    name = input;
                }
                other => {
                    return Err(GraphError::Patch {
                        patch: PATCH,
                        reason: format!(
                            "found {other} (node `{}`) between the output `{output}` and global \
                             pooling",
                            node.name
                        ),
                    });
                }
            }
        }
    };
    graph.output.truncate(1);
    graph.output[0].name = features;
    graph.output[0].type_.clear();
    prune(graph);
    Ok(())
}

/// Removes `Identity` nodes, which exporters use to store equal weights once.
///
/// # Errors
///
/// A cycle of `Identity` nodes.
pub fn inline_identities(graph: &mut GraphProto) -> Result<(), GraphError> {
    let inputs: Vec<Vec<String>> = {
        let view = View::new(graph)?;
        graph
            .node
            .iter()
            .map(|node| {
                node.input
                    .iter()
                    .map(|name| view.resolve(name).to_owned())
                    .collect()
            })
            .collect()
    };
    for (node, inputs) in graph.node.iter_mut().zip(inputs) {
        node.input = inputs;
    }
    let outputs: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    graph
        .node
        .retain(|n| n.op_type != "Identity" || n.output.iter().any(|o| outputs.contains(o)));
    Ok(())
}

/// The weight tensor of the one convolution that reads the image.
///
/// # Errors
///
/// No such convolution, or several.
pub fn stem_weight(graph: &GraphProto) -> Result<String, GraphError> {
    let view = View::new(graph)?;
    let stored: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let images: Vec<&str> = graph
        .input
        .iter()
        .map(|i| i.name.as_str())
        .filter(|n| !stored.contains(n))
        .collect();
    let readers: Vec<&NodeProto> = graph
        .node
        .iter()
        .filter(|node| {
            node.input
                .iter()
                .any(|name| images.contains(&view.resolve(name)))
        })
        .collect();
    match readers[..] {
        [conv] if conv.op_type == "Conv" && conv.input.len() > 1 => {
            Ok(view.resolve(&conv.input[1]).to_owned())
        }
        _ => Err(GraphError::Patch {
            patch: "widening the stem",
            reason: format!(
                "the image must go to one Conv; it goes to {}",
                readers
                    .iter()
                    .map(|node| format!("{} `{}`", node.op_type, node.name))
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
        }),
    }
}

/// Widens the first convolution of a skeleton from 3 to `channels` inputs.
///
/// # Errors
///
/// The graph has no single stem convolution.
pub fn widen_stem(graph: &mut GraphProto, channels: i64) -> Result<(), GraphError> {
    let stem = stem_weight(graph)?;
    for tensor in graph
        .initializer
        .iter_mut()
        .filter(|tensor| tensor.name == stem)
    {
        tensor.dims[1] = channels;
    }
    Ok(())
}

/// The filters of a widened stem.
///
/// `filters` is `[out, 3, kh, kw]` in row-major order; the result `[out, channels, kh, kw]` keeps
/// the first three bit for bit.
#[must_use]
pub fn widen_filters(filters: &[f32], plane: usize, channels: usize, stem: Stem) -> Vec<f32> {
    let mut widened = Vec::with_capacity(filters.len() / 3 * channels);
    for filter in filters.chunks_exact(3 * plane) {
        widened.extend_from_slice(filter);
        for _ in 3..channels {
            match stem {
                Stem::Zero => widened.extend(std::iter::repeat_n(0.0, plane)),
                Stem::Red => widened.extend_from_slice(&filter[..plane]),
                Stem::Mean => widened.extend(
                    (0..plane)
                        .map(|i| (filter[i] + filter[plane + i] + filter[2 * plane + i]) / 3.0),
                ),
            }
        }
    }
    widened
}

/// Turns ONNX's BatchNorm momentum (share of the old statistics) into Burn's (share of the new).
pub fn burn_momentum(graph: &mut GraphProto) {
    for node in graph
        .node
        .iter_mut()
        .filter(|node| node.op_type == "BatchNormalization")
    {
        let momentum = 1.0 - float(node, "momentum", 0.9);
        node.attribute
            .retain(|attribute| attribute.name != "momentum");
        node.attribute.push(AttributeProto {
            name: "momentum".into(),
            // Rounded, so that 1 − 0.9 reads 0.1 in the generated code.
            f: (momentum * 1e6).round() / 1e6,
            type_: AttributeType::FLOAT.into(),
            ..AttributeProto::default()
        });
    }
}

/// Fills every float initializer with values of its own: initializer `i` holds the number `i`.
///
/// # Errors
///
/// A shape that is impossible.
pub fn fill_placeholders(graph: &mut GraphProto) -> Result<(), GraphError> {
    for (index, tensor) in graph.initializer.iter_mut().enumerate() {
        if tensor.data_type == FLOAT {
            let filled = vec![index as f32; numel(tensor)?];
            set_values(tensor, &filled);
        }
    }
    Ok(())
}

/// Fills every float initializer by its role, given as the index of the input that reads it.
///
/// `fill(op_type, input_index, tensor)` returns the values.
pub fn fill_weights(
    graph: &mut GraphProto,
    mut fill: impl FnMut(&str, usize, &TensorProto) -> Vec<f32>,
) {
    let roles: std::collections::HashMap<String, (String, usize)> = graph
        .node
        .iter()
        .flat_map(|node| {
            node.input
                .iter()
                .enumerate()
                .map(|(index, name)| (name.clone(), (node.op_type.clone(), index)))
        })
        .collect();
    for tensor in &mut graph.initializer {
        if let Some((op, index)) = roles.get(&tensor.name) {
            let values = fill(op, *index, tensor);
            set_values(tensor, &values);
        }
    }
}

/// Values of a named float initializer, with its shape.
///
/// # Errors
///
/// It is missing, or its data does not fit its shape.
pub fn weight(graph: &GraphProto, name: &str) -> Result<(Vec<usize>, Vec<f32>), GraphError> {
    let tensor = graph
        .initializer
        .iter()
        .find(|tensor| tensor.name == name)
        .ok_or_else(|| GraphError::Invalid(format!("nothing defines `{name}`")))?;
    let shape = tensor.dims.iter().map(|&dim| dim as usize).collect();
    Ok((shape, values(tensor)?))
}

/// Drops nodes and initializers that no output needs.
pub fn prune(graph: &mut GraphProto) {
    let mut needed: HashSet<String> = graph.output.iter().map(|o| o.name.clone()).collect();
    let mut grew = true;
    while grew {
        let before = needed.len();
        for node in graph.node.iter().rev() {
            if node.output.iter().any(|output| needed.contains(output)) {
                needed.extend(node.input.iter().cloned());
            }
        }
        grew = needed.len() > before;
    }
    graph
        .node
        .retain(|node| node.output.iter().any(|output| needed.contains(output)));
    graph
        .initializer
        .retain(|tensor| needed.contains(&tensor.name));
    graph.value_info.clear();
}

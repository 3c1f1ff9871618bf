//! Edits of a graph that the build, conversion and export need, beside the patches for matching.

use std::collections::{HashMap, HashSet};

use super::attributes::{float, ints, set_float, set_ints};
use super::tensor::{FLOAT, numel, set_values};
use super::view::View;
use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// Where the stem's filters of one channel come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// All zero: the network answers as the original did, whatever the channel holds.
    Zero,
    /// The pretrained filters of red.
    Red,
    /// The pretrained filters of green.
    Green,
    /// The pretrained filters of blue.
    Blue,
    /// The mean of the three.
    Mean,
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

/// The filters of a stem with one input for each of `channels`.
///
/// `filters` is `[out, 3, kh, kw]` in row-major order with `plane` = kh·kw; the result is
/// `[out, channels, kh, kw]`. Filters that are taken over are so bit for bit.
#[must_use]
pub fn widen_filters(filters: &[f32], plane: usize, channels: &[Filter]) -> Vec<f32> {
    let mut widened = Vec::with_capacity(filters.len() / 3 * channels.len());
    for rgb in filters.chunks_exact(3 * plane) {
        let [red, green, blue] = [0, 1, 2].map(|channel| &rgb[channel * plane..][..plane]);
        for channel in channels {
            match channel {
                Filter::Zero => widened.extend(std::iter::repeat_n(0.0, plane)),
                Filter::Red => widened.extend_from_slice(red),
                Filter::Green => widened.extend_from_slice(green),
                Filter::Blue => widened.extend_from_slice(blue),
                Filter::Mean => {
                    widened.extend((0..plane).map(|i| (red[i] + green[i] + blue[i]) / 3.0));
                }
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
        // Rounded, so that 1 − 0.9 reads 0.1 in the generated code.
        set_float(node, "momentum", (momentum * 1e6).round() / 1e6);
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
    let roles: HashMap<String, (String, usize)> = graph
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

/// Lets 1×1 convolutions of one value, which all skip the same pixels, share a pooling of one pixel
/// that does so; nothing else changes, not even in the last bit.
///
/// ResNet50 as published has such pairs. tract 0.23 cannot load them: it merges the two skips and
/// then fails to move the one that is left.
pub fn share_strides(graph: &mut GraphProto) {
    let kernels: HashSet<String> = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.dims.len() == 4 && tensor.dims[2..] == [1, 1])
        .map(|tensor| tensor.name.clone())
        .collect();
    let skip = |node: &NodeProto| {
        let strides = ints(node, "strides", &[1, 1]);
        let plain = node.op_type == "Conv"
            && node.input.get(1).is_some_and(|name| kernels.contains(name))
            && ints(node, "pads", &[0; 4]) == [0; 4]
            && strides != [1, 1];
        plain.then(|| (node.input[0].clone(), strides))
    };
    let mut readers: HashMap<(String, Vec<i64>), usize> = HashMap::new();
    for key in graph.node.iter().filter_map(skip) {
        *readers.entry(key).or_default() += 1;
    }
    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut made = HashSet::new();
    for mut node in std::mem::take(&mut graph.node) {
        if let Some(key) = skip(&node).filter(|key| readers[key] > 1) {
            let pooled = format!("{}/strided", key.0);
            if made.insert(key.clone()) {
                let mut pool = NodeProto::new();
                pool.name.clone_from(&pooled);
                pool.op_type = "MaxPool".into();
                pool.input.push(key.0);
                pool.output.push(pooled.clone());
                set_ints(&mut pool, "kernel_shape", &[1, 1]);
                set_ints(&mut pool, "strides", &key.1);
                nodes.push(pool);
            }
            set_ints(&mut node, "strides", &[1, 1]);
            node.input[0] = pooled;
        }
        nodes.push(node);
    }
    graph.node = nodes;
}

/// Removes the nodes whose index `goes`.
pub(super) fn remove_nodes(graph: &mut GraphProto, goes: impl Fn(usize) -> bool) {
    let mut at = 0..;
    graph.node.retain(|_| !at.next().is_some_and(&goes));
}

/// Drops nodes and initializers that no output needs.
pub fn prune(graph: &mut GraphProto) {
    let mut makers: HashMap<&str, usize> = HashMap::new();
    for (at, node) in graph.node.iter().enumerate() {
        let outputs = node.output.iter().filter(|name| !name.is_empty());
        makers.extend(outputs.map(|name| (name.as_str(), at)));
    }
    let mut kept = vec![false; graph.node.len()];
    let mut needed: HashSet<String> = HashSet::new();
    let mut open: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    while let Some(name) = open.pop() {
        needed.insert(name.to_owned());
        if let Some(&at) = makers.get(name)
            && !std::mem::replace(&mut kept[at], true)
        {
            open.extend(graph.node[at].input.iter().map(String::as_str));
        }
    }
    remove_nodes(graph, |at| !kept[at]);
    graph
        .initializer
        .retain(|tensor| needed.contains(&tensor.name));
    graph.value_info.clear();
}

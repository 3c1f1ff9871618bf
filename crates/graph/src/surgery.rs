//! Edits of a graph for code generation, conversion and export, apart from normalization.

use std::collections::{HashMap, HashSet};

use super::attributes::{float, ints, set_float, set_ints};
use super::tensor::{FLOAT, numel, set_values};
use super::view::GraphView;
use super::{GraphError, GraphProto, NodeProto, TensorProto};

/// Source of the stem filters of one input channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Zeros: the channel does not affect the outputs.
    Zero,
    Red,
    Green,
    Blue,
    /// The mean of the three pretrained channels.
    Mean,
}

/// Returns the name of the weight of the convolution that alone reads the image.
///
/// # Errors
///
/// The image is read by another operator or by several nodes.
pub fn stem_weight(graph: &GraphProto) -> Result<String, GraphError> {
    let view = GraphView::new(graph)?;
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
                "the image must be read by one Conv, but is read by {}",
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
/// As [`stem_weight`].
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

/// Returns the filters of a stem with one input for each of `channels`.
///
/// `filters` is `[out, 3, kh, kw]` in row-major order with `plane` = kh·kw; the result is
/// `[out, channels, kh, kw]`. Copied filters are bit-identical.
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

/// Converts BatchNorm momentum from ONNX (weight of the old statistics) to Burn (of the new).
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

/// Fills the float initializer of index `i` with the value `i`.
///
/// # Errors
///
/// As [`numel`].
pub fn fill_placeholders(graph: &mut GraphProto) -> Result<(), GraphError> {
    for (index, tensor) in graph.initializer.iter_mut().enumerate() {
        if tensor.data_type == FLOAT {
            let filled = vec![index as f32; numel(tensor)?];
            set_values(tensor, &filled);
        }
    }
    Ok(())
}

/// Fills every initializer that a node reads.
///
/// `fill(op_type, input_index, tensor)` returns the values for the last node that reads it.
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

/// Moves equal strides of 1×1 convolutions that read the same value into one 1×1 max pooling.
///
/// The outputs stay bit-identical. The published ResNet50 has such pairs, and tract 0.23 fails to
/// load them: it merges the two strides, then cannot move the merged one.
pub fn share_strides(graph: &mut GraphProto) {
    let kernels: HashSet<String> = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.dims.len() == 4 && tensor.dims[2..] == [1, 1])
        .map(|tensor| tensor.name.clone())
        .collect();
    let sharing_key = |node: &NodeProto| {
        let strides = ints(node, "strides", &[1, 1]);
        let movable = node.op_type == "Conv"
            && node.input.get(1).is_some_and(|name| kernels.contains(name))
            && ints(node, "pads", &[0; 4]) == [0; 4]
            && strides != [1, 1];
        movable.then(|| (node.input[0].clone(), strides))
    };
    let mut readers: HashMap<(String, Vec<i64>), usize> = HashMap::new();
    for key in graph.node.iter().filter_map(sharing_key) {
        *readers.entry(key).or_default() += 1;
    }
    let mut nodes = Vec::with_capacity(graph.node.len());
    let mut pooled_names: HashMap<(String, Vec<i64>), String> = HashMap::new();
    for mut node in std::mem::take(&mut graph.node) {
        if let Some(key) = sharing_key(&node).filter(|key| readers[key] > 1) {
            let (input, strides) = key.clone();
            if !pooled_names.contains_key(&key) {
                let mut pooled = format!("{input}/strided");
                if pooled_names.values().any(|name| *name == pooled) {
                    pooled += &format!("/{strides:?}");
                }
                let mut pool = NodeProto::new();
                pool.name.clone_from(&pooled);
                pool.op_type = "MaxPool".into();
                pool.input.push(input);
                pool.output.push(pooled.clone());
                set_ints(&mut pool, "kernel_shape", &[1, 1]);
                set_ints(&mut pool, "strides", &strides);
                nodes.push(pool);
                pooled_names.insert(key.clone(), pooled);
            }
            set_ints(&mut node, "strides", &[1, 1]);
            node.input[0].clone_from(&pooled_names[&key]);
        }
        nodes.push(node);
    }
    graph.node = nodes;
}

/// Removes the nodes of the indices for which `remove` returns true.
pub(super) fn remove_nodes(graph: &mut GraphProto, remove: impl Fn(usize) -> bool) {
    let mut indices = 0..;
    graph.node.retain(|_| !indices.next().is_some_and(&remove));
}

/// Removes nodes and initializers that no output depends on, and all of `value_info`.
pub fn prune(graph: &mut GraphProto) {
    let mut producers: HashMap<&str, usize> = HashMap::new();
    for (index, node) in graph.node.iter().enumerate() {
        let outputs = node.output.iter().filter(|name| !name.is_empty());
        producers.extend(outputs.map(|name| (name.as_str(), index)));
    }
    let mut kept = vec![false; graph.node.len()];
    let mut needed: HashSet<String> = HashSet::new();
    let mut open: Vec<&str> = graph.output.iter().map(|o| o.name.as_str()).collect();
    while let Some(name) = open.pop() {
        needed.insert(name.to_owned());
        if let Some(&index) = producers.get(name)
            && !std::mem::replace(&mut kept[index], true)
        {
            open.extend(graph.node[index].input.iter().map(String::as_str));
        }
    }
    remove_nodes(graph, |index| !kept[index]);
    graph
        .initializer
        .retain(|tensor| needed.contains(&tensor.name));
    graph.value_info.clear();
}

//! Moves all padding into the `pads` of convolutions and poolings.

use std::collections::HashMap;

use crate::attributes::{float, int, ints, set_int, set_ints, string, unset};
use crate::tensor::{ints as stored_ints, numel, values};
use crate::view::{GraphView, readers};
use crate::{GraphError, GraphProto, NodeProto};

/// Replaces `auto_pad` by `pads`, and moves `Pad` nodes into the convolutions and poolings that read
/// them.
///
/// After a ReLU, zeros around a feature map have the same effect on a max pooling as its own padding.
/// Kept are `SAME` padding at stride 2, which depends on the image size, and a `Pad` with another
/// reader.
///
/// # Errors
///
/// A cycle.
pub(crate) fn explicit_padding(graph: &mut GraphProto) -> Result<(), GraphError> {
    let kernels: HashMap<String, Vec<i64>> = graph
        .initializer
        .iter()
        .filter(|tensor| tensor.dims.len() == 4)
        .map(|tensor| (tensor.name.clone(), tensor.dims[2..].to_vec()))
        .collect();
    for node in &mut graph.node {
        if matches!(node.op_type.as_str(), "Conv" | "MaxPool" | "AveragePool") {
            let filters = node.input.get(1).and_then(|name| kernels.get(name));
            resolve_auto_pad(node, filters);
            reset_count_include_pad(node);
        }
    }
    let moved = movable(graph)?;
    let is_moved = |node: &NodeProto| {
        node.output
            .first()
            .is_some_and(|output| moved.contains_key(output))
    };
    for node in graph.node.iter_mut().filter(|node| node.op_type != "Pad") {
        let Some(padding) = node.input.first().and_then(|input| moved.get(input)) else {
            continue;
        };
        let pads = ints(node, "pads", &[0; 4]);
        let sums = pads.iter().zip(padding.pads);
        let sums: Vec<i64> = sums.map(|(a, b)| a.saturating_add(b)).collect();
        set_ints(node, "pads", &sums);
        if node.op_type == "AveragePool" {
            // The zeros were part of the input, so they are counted.
            set_int(node, "count_include_pad", 1);
            reset_count_include_pad(node);
        }
        node.input[0].clone_from(&padding.input);
    }
    graph.node.retain(|node| !is_moved(node));
    Ok(())
}

fn resolve_auto_pad(node: &mut NodeProto, filters: Option<&Vec<i64>>) {
    let kernel = ints(node, "kernel_shape", filters.map_or(&[], Vec::as_slice));
    let (strides, dilations) = (
        ints(node, "strides", &[1, 1]),
        ints(node, "dilations", &[1, 1]),
    );
    let lengths = kernel.len() == 2 && strides.len() == 2 && dilations.len() == 2;
    let mode = string(node, "auto_pad", "NOTSET");
    let pads = match mode.as_str() {
        "VALID" => vec![0; 4],
        "SAME_UPPER" | "SAME_LOWER" if lengths => {
            // A window of one pixel needs no padding at any stride.
            let same = |axis: usize| {
                let reach = (kernel[axis].checked_sub(1)?).checked_mul(dilations[axis])?;
                (strides[axis] == 1 || reach == 0).then_some(reach)
            };
            let (Some(height), Some(width)) = (same(0), same(1)) else {
                return;
            };
            let (small, large) = (
                [height / 2, width / 2],
                [height - height / 2, width - width / 2],
            );
            let (before, after) = if mode == "SAME_UPPER" {
                (small, large)
            } else {
                (large, small)
            };
            [before, after].concat()
        }
        _ => return,
    };
    set_ints(node, "pads", &pads);
    unset(node, "auto_pad");
}

/// Resets `count_include_pad`, which has no effect without padding.
fn reset_count_include_pad(node: &mut NodeProto) {
    let padded = ints(node, "pads", &[]).iter().any(|&pad| pad != 0);
    if node.op_type == "AveragePool" && !padded && int(node, "ceil_mode", 0) == 0 {
        set_int(node, "count_include_pad", 0);
    }
}

/// A `Pad` of zeros: its input, and pads at the top, left, bottom and right.
struct ZeroPadding {
    input: String,
    pads: [i64; 4],
}

/// Returns the `Pad` nodes that all their readers can absorb, by output name.
fn movable(graph: &GraphProto) -> Result<HashMap<String, ZeroPadding>, GraphError> {
    let view = GraphView::new(graph)?;
    let readers = readers(graph);
    let mut moved = HashMap::new();
    for node in graph.node.iter().filter(|node| node.op_type == "Pad") {
        let (Some(output), Some(input), Some(pads)) = (
            node.output.first(),
            node.input.first(),
            zeros_around(node, &view),
        ) else {
            continue;
        };
        let producer = view
            .producer(input)
            .map(|index| graph.node[index].op_type.as_str());
        let positive = producer == Some("Relu");
        let absorbs = |reader: &NodeProto| {
            let explicit = string(reader, "auto_pad", "NOTSET") == "NOTSET"
                && ints(reader, "pads", &[0; 4]).len() == 4;
            let only_image = reader.input.iter().skip(1).all(|other| other != output);
            let unpadded = ints(reader, "pads", &[0; 4]) == [0; 4];
            let zeros = match reader.op_type.as_str() {
                "Conv" => true,
                "MaxPool" => positive && every_window_overlaps(reader, &pads),
                "AveragePool" => unpadded && every_window_overlaps(reader, &pads),
                _ => false,
            };
            explicit && only_image && zeros
        };
        // A graph output has a reader that is not a node and absorbs nothing.
        let mut readers = readers.get(output.as_str()).into_iter().flatten();
        if readers.all(|&reader| graph.node.get(reader).is_some_and(absorbs)) {
            let input = input.clone();
            moved.insert(output.clone(), ZeroPadding { input, pads });
        }
    }
    // A `Pad` of a `Pad` would leave its reader with a removed name.
    let chained = |padding: &ZeroPadding| moved.contains_key(&padding.input);
    let chains: Vec<String> = moved
        .iter()
        .filter(|(_, padding)| chained(padding))
        .map(|(output, _)| output.clone())
        .collect();
    for output in &chains {
        moved.remove(output);
    }
    Ok(moved)
}

/// Returns whether every window of a pooling contains a pixel of the image, with additional `pads`.
///
/// A pooling has no defined result for a window of its own padding alone, and with `ceil_mode` it
/// drops windows that start in its padding.
fn every_window_overlaps(pool: &NodeProto, pads: &[i64; 4]) -> bool {
    let kernel = ints(pool, "kernel_shape", &[]);
    let own = ints(pool, "pads", &[0; 4]);
    let sums = own.iter().zip(pads).map(|(a, b)| a.saturating_add(*b));
    kernel.len() == 2
        && sums
            .zip(kernel.iter().cycle())
            .all(|(sum, side)| sum < *side)
        && ints(pool, "dilations", &[1, 1]) == [1, 1]
        && int(pool, "ceil_mode", 0) == 0
        && pool.output.len() == 1
}

/// Returns the spatial pads of a `Pad` node that adds zeros only.
fn zeros_around(node: &NodeProto, view: &GraphView) -> Option<[i64; 4]> {
    (string(node, "mode", "constant") == "constant").then_some(())?;
    let stored = |index: usize| node.input.get(index).filter(|name| !name.is_empty());
    let value = match stored(2) {
        Some(name) => *values(view.tensor(name)?).ok()?.first()?,
        None => float(node, "value", 0.0),
    };
    let pads = match stored(1) {
        Some(name) => {
            let tensor = view.tensor(name)?;
            (numel(tensor).ok()? == 8).then(|| stored_ints(tensor).ok())??
        }
        None => ints(node, "pads", &[]),
    };
    let zeros = value == 0.0 && stored(3).is_none();
    match pads[..] {
        [0, 0, top, left, 0, 0, bottom, right]
            if zeros
                && [top, left, bottom, right]
                    .iter()
                    .all(|pad| (0..1024).contains(pad)) =>
        {
            Some([top, left, bottom, right])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{GraphBuilder, constant_ints, weight, with_ints, with_string};

    fn padded(reader: &str, before: &str) -> GraphProto {
        GraphBuilder::new()
            .weight(weight("w", &[2, 3, 3, 3]))
            .weight(constant_ints("around", &[0, 0, 1, 2, 0, 0, 3, 4]))
            .node(before, &["image"], "x")
            .node("Pad", &["x", "around"], "p")
            .node(reader, &["p", "w"], "y")
            .with(with_ints("pads", &[1, 0, 0, 0]))
            .with(with_ints("kernel_shape", &[5, 5]))
            .graph("y")
    }

    #[test]
    fn moves_zeros_into_the_convolution() {
        let mut graph = padded("Conv", "Sigmoid");
        explicit_padding(&mut graph).unwrap();
        assert_eq!(graph.node.len(), 2);
        assert_eq!(graph.node[1].input, ["x", "w"]);
        assert_eq!(ints(&graph.node[1], "pads", &[]), [2, 2, 3, 4]);
    }

    #[test]
    fn extreme_pads_do_not_panic() {
        let mut graph = padded("Conv", "Sigmoid");
        set_ints(&mut graph.node[2], "pads", &[i64::MAX, 0, 0, 0]);
        explicit_padding(&mut graph).unwrap();
        assert_eq!(ints(&graph.node[1], "pads", &[]), [i64::MAX, 2, 3, 4]);
    }

    #[test]
    fn max_pooling_absorbs_zeros_only_after_a_relu() {
        let mut after_relu = padded("MaxPool", "Relu");
        explicit_padding(&mut after_relu).unwrap();
        assert_eq!(after_relu.node.len(), 2);
        // A window of zeros alone would be a window of the pooling's own padding.
        let mut small_window = padded("MaxPool", "Relu");
        set_ints(&mut small_window.node[2], "kernel_shape", &[4, 4]);
        explicit_padding(&mut small_window).unwrap();
        assert_eq!(small_window.node.len(), 3);
        // A zero is larger than negative values.
        let mut after_other = padded("MaxPool", "Neg");
        explicit_padding(&mut after_other).unwrap();
        assert_eq!(after_other.node.len(), 3);
    }

    #[test]
    fn average_pooling_counts_the_zeros() {
        for (amount, counts) in [(1, 1), (0, 0)] {
            let mut graph = GraphBuilder::new()
                .weight(constant_ints(
                    "around",
                    &[0, 0, amount, amount, 0, 0, amount, amount],
                ))
                .node("Pad", &["image", "around"], "p")
                .node("AveragePool", &["p"], "y")
                .with(with_ints("kernel_shape", &[2, 2]))
                .graph("y");
            explicit_padding(&mut graph).unwrap();
            assert_eq!(graph.node.len(), 1);
            assert_eq!(ints(&graph.node[0], "pads", &[]), [amount; 4]);
            assert_eq!(int(&graph.node[0], "count_include_pad", 0), counts);
        }
    }

    #[test]
    fn resolves_same_padding_at_stride_one() {
        for (mode, stride, expected) in [
            ("SAME_UPPER", 1, Some([0, 1, 1, 1])),
            ("SAME_LOWER", 1, Some([1, 1, 0, 1])),
            ("VALID", 2, Some([0, 0, 0, 0])),
            ("SAME_UPPER", 2, None),
        ] {
            let mut graph = GraphBuilder::new()
                .weight(weight("w", &[2, 3, 2, 3]))
                .node("Conv", &["image", "w"], "y")
                .with(with_string("auto_pad", mode))
                .with(with_ints("strides", &[stride, stride]))
                .graph("y");
            explicit_padding(&mut graph).unwrap();
            let node = &graph.node[0];
            assert_eq!(
                ints(node, "pads", &[]),
                expected.map_or(vec![], Vec::from),
                "{mode}"
            );
            assert_eq!(string(node, "auto_pad", "").is_empty(), expected.is_some());
        }
    }
}

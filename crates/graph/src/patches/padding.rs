//! Padding, said in one way: as `pads` of the convolution or pooling that it is for.

use std::collections::HashMap;

use crate::attributes::{float, int, ints, set_int, set_ints, string, unset};
use crate::tensor::{ints as stored_ints, numel, values};
use crate::view::{View, readers};
use crate::{GraphError, GraphProto, NodeProto};

/// Turns `auto_pad` into `pads`, and moves `Pad` nodes into the convolutions and poolings that
/// read them.
///
/// Zeros around an image that is never negative (after a ReLU) are for a max pooling the same as
/// its own padding. `SAME` padding at stride 2 depends on the size of the image and stays as it
/// is; so does a `Pad` that not all of its readers can take.
///
/// # Errors
///
/// A cycle.
pub(super) fn explicit_padding(graph: &mut GraphProto) -> Result<(), GraphError> {
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
            drop_idle_attributes(node);
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
            // The zeros were part of the image, so they count.
            set_int(node, "count_include_pad", 1);
            drop_idle_attributes(node);
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

/// Whether padding counts in an average is no question where there is none.
fn drop_idle_attributes(node: &mut NodeProto) {
    let padded = ints(node, "pads", &[]).iter().any(|&pad| pad != 0);
    if node.op_type == "AveragePool" && !padded && int(node, "ceil_mode", 0) == 0 {
        set_int(node, "count_include_pad", 0);
    }
}

/// Zeros around an image: top, left, bottom, right.
struct Padding {
    input: String,
    pads: [i64; 4],
}

/// The `Pad` nodes that all their readers can take over, by output.
fn movable(graph: &GraphProto) -> Result<HashMap<String, Padding>, GraphError> {
    let view = View::new(graph)?;
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
        let takes = |reader: &NodeProto| {
            let explicit = string(reader, "auto_pad", "NOTSET") == "NOTSET"
                && ints(reader, "pads", &[0; 4]).len() == 4;
            let only_image = reader.input.iter().skip(1).all(|other| other != output);
            let unpadded = ints(reader, "pads", &[0; 4]) == [0; 4];
            let zeros = match reader.op_type.as_str() {
                "Conv" => true,
                "MaxPool" => positive,
                "AveragePool" => unpadded,
                _ => false,
            };
            explicit && only_image && zeros
        };
        // What the graph puts out is read by no node, which takes nothing.
        let mut readers = readers.get(output.as_str()).into_iter().flatten();
        if readers.all(|&reader| graph.node.get(reader).is_some_and(takes)) {
            let input = input.clone();
            moved.insert(output.clone(), Padding { input, pads });
        }
    }
    // A Pad of a Pad would leave a reader with a name that is gone.
    let chained = |padding: &Padding| moved.contains_key(&padding.input);
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

/// The spatial pads of a `Pad` node that adds zeros, and nothing else.
fn zeros_around(node: &NodeProto, view: &View) -> Option<[i64; 4]> {
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
    use crate::tests::{Sketch, constant_ints, weight, with_ints, with_string};

    fn padded(reader: &str, before: &str) -> GraphProto {
        Sketch::new()
            .weight(weight("w", &[2, 3, 3, 3]))
            .weight(constant_ints("around", &[0, 0, 1, 2, 0, 0, 3, 4]))
            .node(before, &["image"], "x")
            .node("Pad", &["x", "around"], "p")
            .node(reader, &["p", "w"], "y")
            .with(with_ints("pads", &[1, 0, 0, 0]))
            .graph("y")
    }

    #[test]
    fn zeros_move_into_the_convolution() {
        let mut graph = padded("Conv", "Sigmoid");
        explicit_padding(&mut graph).unwrap();
        assert_eq!(graph.node.len(), 2);
        assert_eq!(graph.node[1].input, ["x", "w"]);
        assert_eq!(ints(&graph.node[1], "pads", &[]), [2, 2, 3, 4]);
    }

    #[test]
    fn an_amount_beyond_all_bounds_is_no_panic() {
        let mut graph = padded("Conv", "Sigmoid");
        set_ints(&mut graph.node[2], "pads", &[i64::MAX, 0, 0, 0]);
        explicit_padding(&mut graph).unwrap();
        assert_eq!(ints(&graph.node[1], "pads", &[]), [i64::MAX, 2, 3, 4]);
    }

    #[test]
    fn a_max_pooling_takes_zeros_only_after_a_relu() {
        let mut after_relu = padded("MaxPool", "Relu");
        explicit_padding(&mut after_relu).unwrap();
        assert_eq!(after_relu.node.len(), 2);
        // Where values may be negative, a zero beside them is larger than nothing.
        let mut after_other = padded("MaxPool", "Neg");
        explicit_padding(&mut after_other).unwrap();
        assert_eq!(after_other.node.len(), 3);
    }

    #[test]
    fn an_average_pooling_counts_the_zeros_unless_there_are_none() {
        for (amount, counts) in [(1, 1), (0, 0)] {
            let mut graph = Sketch::new()
                .weight(constant_ints(
                    "around",
                    &[0, 0, amount, amount, 0, 0, amount, amount],
                ))
                .node("Pad", &["image", "around"], "p")
                .node("AveragePool", &["p"], "y")
                .graph("y");
            explicit_padding(&mut graph).unwrap();
            assert_eq!(graph.node.len(), 1);
            assert_eq!(ints(&graph.node[0], "pads", &[]), [amount; 4]);
            assert_eq!(int(&graph.node[0], "count_include_pad", 0), counts);
        }
    }

    #[test]
    fn same_padding_is_spelled_out_at_stride_one() {
        for (mode, stride, expected) in [
            ("SAME_UPPER", 1, Some([0, 1, 1, 1])),
            ("SAME_LOWER", 1, Some([1, 1, 0, 1])),
            ("VALID", 2, Some([0, 0, 0, 0])),
            ("SAME_UPPER", 2, None),
        ] {
            let mut graph = Sketch::new()
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

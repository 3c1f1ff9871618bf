//! Exports with the channels last, as TensorFlow has them: `Transpose` nodes go, axes are renumbered.

use std::collections::{HashMap, HashSet};

use onnx_ir::ValueInfoProto;

use super::arithmetic::ConstantArray;
use crate::attributes::{int, ints, set_int, set_ints};
use crate::tensor;
use crate::view::View;
use crate::{GraphError, GraphProto, NodeProto, TensorProto};

const PATCH: &str = "putting channels first";
/// Axis `i` of a value is axis `LAYOUT[i]` of `[N, C, H, W]`.
type AxisOrder = [usize; 4];
const FIRST: AxisOrder = [0, 1, 2, 3];
const LAST: AxisOrder = [0, 2, 3, 1];

/// Rewrites a graph so that every image and feature map is `[N, C, H, W]`.
///
/// The layout of each value is followed from the input through the graph; `Transpose` nodes of
/// images vanish, and axes, paddings and per-channel constants are rewritten where they stand in
/// another layout. A graph that has its channels first throughout stays as it is.
///
/// # Errors
///
/// A convolution or pooling that reads another layout.
pub(super) fn channels_first(graph: &mut GraphProto) -> Result<(), GraphError> {
    let mut rewriter = Rewriter {
        views: image_layouts(graph),
        constants: graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name.clone(), tensor.clone()))
            .collect(),
        made: Vec::new(),
    };
    if rewriter.views.is_empty() && graph.node.iter().all(|node| node.op_type != "Transpose") {
        return Ok(());
    }
    let order = View::new(graph)?.order()?;
    let mut nodes = Vec::with_capacity(order.len());
    for index in order {
        let mut node = graph.node[index].clone();
        if !rewriter.rewrite(&mut node)? {
            nodes.push(node);
        }
    }
    for output in &mut graph.output {
        output.name = rewriter.look(&output.name).0;
    }
    graph.node = nodes;
    graph.initializer.append(&mut rewriter.made);
    Ok(())
}

/// Images that come in with their channels last: declared so, or transposed at once.
fn image_layouts(graph: &GraphProto) -> HashMap<String, (String, AxisOrder)> {
    let declared_last = |input: &ValueInfoProto| {
        let dims = &input.type_.tensor_type().shape.dim;
        dims.len() == 4 && dims[3].dim_value() == 3 && dims[1].dim_value() != 3
    };
    let transposed: HashSet<&str> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "Transpose" && ints(node, "perm", &[]) == [0, 3, 1, 2])
        .filter_map(|node| Some(node.input.first()?.as_str()))
        .collect();
    graph
        .input
        .iter()
        .filter(|input| declared_last(input) || transposed.contains(input.name.as_str()))
        .map(|input| (input.name.clone(), (input.name.clone(), LAST)))
        .collect()
}

struct Rewriter {
    /// For a name of the old graph: the value of the new one and the layout in which it was seen;
    /// names that are not here are their own value, in `[N, C, H, W]`.
    views: HashMap<String, (String, AxisOrder)>,
    constants: HashMap<String, TensorProto>,
    made: Vec<TensorProto>,
}

impl Rewriter {
    fn look(&self, name: &str) -> (String, AxisOrder) {
        let known = self.views.get(name).cloned();
        known.unwrap_or_else(|| (name.to_owned(), FIRST))
    }

    /// Brings one node to `[N, C, H, W]`; true if nothing is left of it.
    fn rewrite(&mut self, node: &mut NodeProto) -> Result<bool, GraphError> {
        let mut layouts = Vec::new();
        for input in &mut node.input {
            if !input.is_empty() && !self.constants.contains_key(input) {
                let (name, layout) = self.look(input);
                *input = name;
                layouts.push(layout);
            }
        }
        let Some(&layout) = layouts.first() else {
            return Ok(false);
        };
        if node.op_type == "Transpose" {
            return Ok(self.follow(node, layout));
        }
        if layouts.iter().all(|&layout| layout == FIRST) {
            return Ok(false);
        }
        let same = layouts.iter().all(|&other| other == layout);
        let kept = match node.op_type.as_str() {
            "Relu" | "Clip" | "Sigmoid" | "Softmax" | "Cast" => true,
            "Add" | "Mul" | "Sub" | "Div" if same => self.turn_constants(node, layout),
            "Concat" if same => {
                let axis = turned(int(node, "axis", 1), layout);
                set_int(node, "axis", axis);
                true
            }
            "Pad" => self.turn_pads(node, layout),
            "ReduceMean" => self.turn_reduction(node, layout),
            "Conv" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "BatchNormalization" => {
                return Err(GraphError::Patch {
                    patch: PATCH,
                    reason: format!(
                        "{} (node `{}`) reads a value whose axes are in the order {layout:?}",
                        node.op_type, node.name
                    ),
                });
            }
            // What else there is stands in the classifier, or is no part of any known network.
            _ => false,
        };
        if let (true, Some(output)) = (kept, node.output.first()) {
            self.views.insert(output.clone(), (output.clone(), layout));
        }
        Ok(false)
    }

    /// Removes a `Transpose` of an image: its output is its input, seen in another layout.
    fn follow(&mut self, node: &NodeProto, layout: AxisOrder) -> bool {
        let perm = ints(node, "perm", &[]);
        let (Ok(perm), [input], [output]) = (
            <[i64; 4]>::try_from(perm),
            &node.input[..],
            &node.output[..],
        ) else {
            return false;
        };
        if !(0..4).all(|axis| perm.contains(&axis)) {
            return false;
        }
        let turned = perm.map(|axis| layout[axis as usize]);
        self.views.insert(output.clone(), (input.clone(), turned));
        true
    }

    /// Per-channel constants `[C]` or `[1, 1, C]` become `[C, 1, 1]`.
    fn turn_constants(&mut self, node: &mut NodeProto, layout: AxisOrder) -> bool {
        for input in &mut node.input {
            let Some(array) = self.constants.get(input).and_then(ConstantArray::read) else {
                continue;
            };
            let Some(skipped) = 4_usize.checked_sub(array.dims.len()) else {
                return false;
            };
            let long = |axis: &usize| array.dims[*axis] != 1;
            let longer: Vec<usize> = (0..array.dims.len()).filter(long).collect();
            let mut dims = vec![1; 4];
            match longer[..] {
                [] => continue,
                [axis] => dims[layout[axis + skipped]] = array.dims[axis],
                _ => return false,
            }
            let name = format!("{input}/{PATCH}");
            let turned = ConstantArray {
                dims,
                data: array.data,
            };
            let Ok(tensor) = turned.write(&name) else {
                return false;
            };
            if self
                .constants
                .insert(name.clone(), tensor.clone())
                .is_none()
            {
                self.made.push(tensor);
            }
            *input = name;
        }
        true
    }

    /// `Pad`: eight amounts, before and after each axis, in an attribute or a constant.
    fn turn_pads(&mut self, node: &mut NodeProto, layout: AxisOrder) -> bool {
        let turn = |pads: &[i64]| {
            let mut turned = vec![0; 8];
            for (axis, &to) in layout.iter().enumerate() {
                turned[to] = pads[axis];
                turned[to + 4] = pads[axis + 4];
            }
            turned
        };
        let attribute = ints(node, "pads", &[]);
        if attribute.len() == 8 {
            set_ints(node, "pads", &turn(&attribute));
            return true;
        }
        let stored = node.input.get(1).and_then(|name| self.constants.get(name));
        let Some(pads) = stored
            .and_then(|t| tensor::ints(t).ok())
            .filter(|pads| pads.len() == 8)
        else {
            return false;
        };
        self.replace_constant(node, 1, turn(&pads))
    }

    /// `ReduceMean`: axes in an attribute, since opset 18 in a constant.
    fn turn_reduction(&mut self, node: &mut NodeProto, layout: AxisOrder) -> bool {
        let turn = |axes: Vec<i64>| -> Vec<i64> {
            axes.into_iter().map(|axis| turned(axis, layout)).collect()
        };
        let attribute = ints(node, "axes", &[]);
        if attribute.is_empty() {
            let stored = node.input.get(1).and_then(|name| self.constants.get(name));
            let Some(axes) = stored.and_then(|t| tensor::ints(t).ok()) else {
                return false;
            };
            self.replace_constant(node, 1, turn(axes));
        } else {
            set_ints(node, "axes", &turn(attribute));
        }
        int(node, "keepdims", 1) == 1
    }

    fn replace_constant(&mut self, node: &mut NodeProto, input: usize, values: Vec<i64>) -> bool {
        let name = format!("{}/{PATCH}", node.output.first().map_or("", String::as_str));
        let Ok(tensor) = ConstantArray::ints(values).write(&name) else {
            return false;
        };
        node.input[input].clone_from(&name);
        self.constants.insert(name, tensor.clone());
        self.made.push(tensor);
        true
    }
}

/// Where an axis lies in `[N, C, H, W]`; a negative one counts from the end.
fn turned(axis: i64, layout: AxisOrder) -> i64 {
    layout[axis.rem_euclid(4) as usize] as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Sketch, constant_ints, weight, with_int, with_ints};

    const TO_FIRST: [i64; 4] = [0, 3, 1, 2];
    const TO_LAST: [i64; 4] = [0, 2, 3, 1];

    fn ops(graph: &GraphProto) -> Vec<&str> {
        graph
            .node
            .iter()
            .map(|node| node.op_type.as_str())
            .collect()
    }

    #[test]
    fn transposes_vanish_and_axes_are_renumbered() {
        // Channels-last padding, bias, concatenation and mean around channels-first convolutions.
        let mut graph = Sketch::new()
            .weight(constant_ints("pads", &[0, 1, 2, 0, 0, 3, 4, 0]))
            .weight(weight("w", &[2, 3, 1, 1]))
            .weight(weight("bias", &[2]))
            .node("Pad", &["image", "pads"], "padded")
            .node("Transpose", &["padded"], "first")
            .with(with_ints("perm", &TO_FIRST))
            .node("Conv", &["first", "w"], "conv")
            .node("Transpose", &["conv"], "last")
            .with(with_ints("perm", &TO_LAST))
            .node("Add", &["last", "bias"], "sum")
            .node("Concat", &["sum", "last"], "cat")
            .with(with_int("axis", -1))
            .node("ReduceMean", &["cat"], "mean")
            .with(with_ints("axes", &[1, 2]))
            .last_channels()
            .graph("mean");
        channels_first(&mut graph).unwrap();
        assert_eq!(ops(&graph), ["Pad", "Conv", "Add", "Concat", "ReduceMean"]);
        let [pad, conv, add, cat, mean] = &graph.node[..] else {
            unreachable!()
        };
        let stored = |name: &str| {
            graph
                .initializer
                .iter()
                .find(|tensor| tensor.name == name)
                .unwrap()
        };
        assert_eq!(
            tensor::ints(stored(&pad.input[1])).unwrap(),
            [0, 0, 1, 2, 0, 0, 3, 4]
        );
        assert_eq!(conv.input, ["padded", "w"]);
        assert_eq!(add.input[0], "conv");
        assert_eq!(stored(&add.input[1]).dims, [1, 2, 1, 1]);
        assert_eq!(cat.input, ["sum", "conv"]);
        assert_eq!(int(cat, "axis", 0), 1);
        assert_eq!(ints(mean, "axes", &[]), [2, 3]);
    }

    #[test]
    fn an_axis_beyond_all_bounds_is_no_panic() {
        for axis in [i64::MIN, i64::MAX] {
            let mut graph = Sketch::new()
                .node("Concat", &["image", "image"], "cat")
                .with(with_int("axis", axis))
                .node("ReduceMean", &["cat"], "mean")
                .with(with_ints("axes", &[axis]))
                .last_channels()
                .graph("mean");
            channels_first(&mut graph).unwrap();
            assert_eq!(ops(&graph), ["Concat", "ReduceMean"]);
        }
    }

    #[test]
    fn a_graph_with_its_channels_first_stays_as_it_is() {
        let mut graph = Sketch::new()
            .weight(weight("w", &[2, 3, 1, 1]))
            .node("Conv", &["image", "w"], "conv")
            .node("Relu", &["conv"], "relu")
            .graph("relu");
        let before = graph.clone();
        channels_first(&mut graph).unwrap();
        assert_eq!(graph, before);
    }

    #[test]
    fn a_convolution_over_channels_last_is_refused_and_nothing_is_changed() {
        let mut graph = Sketch::new()
            .weight(weight("w", &[2, 3, 1, 1]))
            .node("Conv", &["image", "w"], "conv")
            .last_channels()
            .graph("conv");
        let before = graph.clone();
        let message = channels_first(&mut graph).unwrap_err().to_string();
        assert!(
            message.contains("Conv") && message.contains("[0, 2, 3, 1]"),
            "{message}"
        );
        assert_eq!(graph, before);
    }
}

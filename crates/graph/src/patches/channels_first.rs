//! Converts channels-last exports (TensorFlow) to channels first.

use std::collections::{HashMap, HashSet};

use super::arithmetic::ConstantArray;
use crate::attributes::{int, ints, set_int, set_ints};
use crate::tensor;
use crate::view::GraphView;
use crate::{GraphError, GraphProto, NodeProto, TensorProto, ValueInfoProto};

const PATCH: &str = "putting channels first";
/// Axis `i` of a value in the original graph is axis `layout[i]` of the value in the new graph.
type AxisOrder = [usize; 4];
const FIRST: AxisOrder = [0, 1, 2, 3];
const LAST: AxisOrder = [0, 2, 3, 1];

/// Rewrites a graph so that the image and every feature map are `[N, C, H, W]`.
///
/// The layout of each value is propagated from the input. `Transpose` nodes are removed; axes, pads
/// and per-channel constants are permuted. An operator that cannot be rewritten gets a `Transpose`
/// to its original layout. A graph that is channels-first throughout is unchanged.
///
/// # Errors
///
/// A convolution, pooling or BatchNorm reads a value in another layout.
pub(crate) fn channels_first(graph: &mut GraphProto) -> Result<(), GraphError> {
    let mut rewriter = LayoutRewriter {
        values: image_layouts(graph),
        constants: graph
            .initializer
            .iter()
            .map(|tensor| (tensor.name.clone(), tensor.clone()))
            .collect(),
        new_constants: Vec::new(),
        restored: HashSet::new(),
        nodes: Vec::with_capacity(graph.node.len()),
    };
    if rewriter.values.is_empty() && graph.node.iter().all(|node| node.op_type != "Transpose") {
        return Ok(());
    }
    for index in GraphView::new(graph)?.order()? {
        rewriter.rewrite(&graph.node[index])?;
    }
    for output in &mut graph.output {
        output.name = rewriter.value(&output.name).0;
    }
    graph.node = rewriter.nodes;
    graph.initializer.append(&mut rewriter.new_constants);
    Ok(())
}

/// Returns the channels-last images: inputs declared as such, or transposed to channels first.
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

/// Result of rewriting one node.
enum LayoutChange {
    /// The output has the layout of the inputs.
    Kept,
    /// The output has no image axes and equals that of the original node.
    Reduced,
    /// The node cannot be rewritten.
    Unsupported,
}

struct LayoutRewriter {
    /// Maps a name of the original graph to the name and layout in the new graph. Missing names
    /// are unchanged.
    values: HashMap<String, (String, AxisOrder)>,
    constants: HashMap<String, TensorProto>,
    new_constants: Vec<TensorProto>,
    /// Names of values that were transposed back to their original layout.
    restored: HashSet<String>,
    nodes: Vec<NodeProto>,
}

impl LayoutRewriter {
    fn value(&self, name: &str) -> (String, AxisOrder) {
        let value = self.values.get(name).cloned();
        value.unwrap_or_else(|| (name.to_owned(), FIRST))
    }

    fn is_value(&self, input: &str) -> bool {
        !input.is_empty() && !self.constants.contains_key(input)
    }

    /// Appends a node in its new layout.
    fn rewrite(&mut self, original: &NodeProto) -> Result<(), GraphError> {
        let mut node = original.clone();
        let mut layouts = Vec::new();
        for input in &mut node.input {
            if self.is_value(input) {
                let (name, layout) = self.value(input);
                *input = name;
                layouts.push(layout);
            }
        }
        let layout = layouts.first().copied().unwrap_or(FIRST);
        if node.op_type == "Transpose"
            && !layouts.is_empty()
            && self.remove_transpose(&node, layout)
        {
            return Ok(());
        }
        if layouts.iter().all(|&layout| layout == FIRST) {
            self.nodes.push(node);
            return Ok(());
        }
        let change = if layouts.iter().all(|&other| other == layout) {
            self.permute(&mut node, layout)?
        } else {
            LayoutChange::Unsupported
        };
        match (change, node.output.first()) {
            (LayoutChange::Kept, Some(output)) => {
                self.values.insert(output.clone(), (output.clone(), layout));
            }
            (LayoutChange::Unsupported, _) => {
                node = original.clone();
                for input in &mut node.input {
                    *input = self.in_original_layout(input);
                }
            }
            _ => {}
        }
        self.nodes.push(node);
        Ok(())
    }

    /// Permutes axes and constants of a node whose inputs have the layout `layout`.
    fn permute(
        &mut self,
        node: &mut NodeProto,
        layout: AxisOrder,
    ) -> Result<LayoutChange, GraphError> {
        let kept = match node.op_type.as_str() {
            "Relu" | "Clip" | "Sigmoid" | "Cast" => true,
            "Add" | "Mul" | "Sub" | "Div" => self.permute_constants(node, layout),
            "Concat" if node.input.iter().all(|input| self.is_value(input)) => {
                let axis = permuted(int(node, "axis", 1), layout);
                set_int(node, "axis", axis);
                true
            }
            "Pad" => self.permute_pads(node, layout),
            "ReduceMean" => return Ok(self.permute_reduction(node, layout)),
            "Conv" | "MaxPool" | "AveragePool" | "GlobalAveragePool" | "BatchNormalization" => {
                return Err(GraphError::Patch {
                    patch: PATCH,
                    reason: format!(
                        "{} (node `{}`) reads a value whose axes are in the order {layout:?}",
                        node.op_type, node.name
                    ),
                });
            }
            _ => false,
        };
        Ok(if kept {
            LayoutChange::Kept
        } else {
            LayoutChange::Unsupported
        })
    }

    /// Returns a value in its original layout; appends a `Transpose` if needed.
    fn in_original_layout(&mut self, name: &str) -> String {
        let (value, layout) = self.value(name);
        if layout == FIRST || !self.is_value(name) {
            return value;
        }
        let restored = format!("{name}/{PATCH}/restored");
        if self.restored.insert(restored.clone()) {
            let mut node = NodeProto::new();
            node.op_type = "Transpose".into();
            node.name.clone_from(&restored);
            node.input.push(value);
            node.output.push(restored.clone());
            set_ints(&mut node, "perm", &layout.map(|axis| axis as i64));
            self.nodes.push(node);
        }
        restored
    }

    /// Replaces the output of a `Transpose` of an image by its input in another layout.
    fn remove_transpose(&mut self, node: &NodeProto, layout: AxisOrder) -> bool {
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
        let order = perm.map(|axis| layout[axis as usize]);
        self.values.insert(output.clone(), (input.clone(), order));
        true
    }

    /// Reshapes per-channel constants `[C]` or `[1, 1, C]` to `[1, C, 1, 1]`.
    fn permute_constants(&mut self, node: &mut NodeProto, layout: AxisOrder) -> bool {
        for input in &mut node.input {
            if !self.constants.contains_key(input) {
                continue;
            }
            let Some(array) = self.constants.get(input).and_then(ConstantArray::read) else {
                return false;
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
            let axis = dims.iter().position(|&dim| dim != 1).unwrap_or(0);
            let name = format!("{input}/{PATCH}/{axis}");
            let reshaped = ConstantArray {
                dims,
                data: array.data,
            };
            let Ok(tensor) = reshaped.write(&name) else {
                return false;
            };
            self.add_constant(tensor);
            *input = name;
        }
        true
    }

    /// Permutes the eight amounts of a `Pad`, in an attribute or a constant.
    fn permute_pads(&mut self, node: &mut NodeProto, layout: AxisOrder) -> bool {
        // Since opset 18 an input may select the axes.
        if node.input.get(3).is_some_and(|axes| !axes.is_empty()) {
            return false;
        }
        let permute = |pads: &[i64]| {
            let mut permuted = vec![0; 8];
            for (axis, &to) in layout.iter().enumerate() {
                permuted[to] = pads[axis];
                permuted[to + 4] = pads[axis + 4];
            }
            permuted
        };
        let attribute = ints(node, "pads", &[]);
        if attribute.len() == 8 {
            set_ints(node, "pads", &permute(&attribute));
            return true;
        }
        let stored = node.input.get(1).and_then(|name| self.constants.get(name));
        let Some(pads) = stored
            .and_then(|tensor| tensor::ints(tensor).ok())
            .filter(|pads| pads.len() == 8)
        else {
            return false;
        };
        self.replace_constant(node, permute(&pads))
    }

    /// Permutes the axes of a `ReduceMean`, in an attribute or, since opset 18, a constant.
    fn permute_reduction(&mut self, node: &mut NodeProto, layout: AxisOrder) -> LayoutChange {
        let attribute = ints(node, "axes", &[]);
        let original = if attribute.is_empty() {
            let stored = node.input.get(1).and_then(|name| self.constants.get(name));
            let Some(axes) = stored.and_then(|tensor| tensor::ints(tensor).ok()) else {
                return LayoutChange::Unsupported;
            };
            axes
        } else {
            attribute.clone()
        };
        let axes: Vec<i64> = original
            .into_iter()
            .map(|axis| permuted(axis, layout))
            .collect();
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        // Without the reduced axes the others must be in their original order: [N, C].
        let keeps_axes = int(node, "keepdims", 1) == 1;
        if axes.is_empty() || !keeps_axes && sorted != [2, 3] {
            return LayoutChange::Unsupported;
        }
        if attribute.is_empty() {
            if !self.replace_constant(node, axes) {
                return LayoutChange::Unsupported;
            }
        } else {
            set_ints(node, "axes", &axes);
        }
        if keeps_axes {
            LayoutChange::Kept
        } else {
            LayoutChange::Reduced
        }
    }

    /// Replaces the second input by a new constant.
    fn replace_constant(&mut self, node: &mut NodeProto, values: Vec<i64>) -> bool {
        let name = format!("{}/{PATCH}", node.output.first().map_or("", String::as_str));
        let Ok(tensor) = ConstantArray::ints(values).write(&name) else {
            return false;
        };
        node.input[1] = name;
        self.add_constant(tensor);
        true
    }

    fn add_constant(&mut self, tensor: TensorProto) {
        let name = tensor.name.clone();
        if self.constants.insert(name, tensor.clone()).is_none() {
            self.new_constants.push(tensor);
        }
    }
}

/// Returns the new position of an axis; a negative one counts from the end.
fn permuted(axis: i64, layout: AxisOrder) -> i64 {
    layout[axis.rem_euclid(4) as usize] as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{GraphBuilder, constant_ints, weight, with_int, with_ints};

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
    fn removes_transposes_and_permutes_axes() {
        // Channels-last padding, bias, concatenation and mean around a channels-first convolution.
        let mut graph = GraphBuilder::new()
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
            .channels_last()
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
    fn extreme_axes_do_not_panic() {
        for axis in [i64::MIN, i64::MAX] {
            let mut graph = GraphBuilder::new()
                .node("Concat", &["image", "image"], "cat")
                .with(with_int("axis", axis))
                .node("ReduceMean", &["cat"], "mean")
                .with(with_ints("axes", &[axis]))
                .channels_last()
                .graph("mean");
            channels_first(&mut graph).unwrap();
            assert_eq!(ops(&graph), ["Concat", "ReduceMean"]);
        }
    }

    #[test]
    fn keeps_a_channels_first_graph() {
        let mut graph = GraphBuilder::new()
            .weight(weight("w", &[2, 3, 1, 1]))
            .node("Conv", &["image", "w"], "conv")
            .node("Relu", &["conv"], "relu")
            .graph("relu");
        let before = graph.clone();
        channels_first(&mut graph).unwrap();
        assert_eq!(graph, before);
    }

    #[test]
    fn refuses_a_convolution_over_channels_last_and_keeps_the_graph() {
        let mut graph = GraphBuilder::new()
            .weight(weight("w", &[2, 3, 1, 1]))
            .node("Conv", &["image", "w"], "conv")
            .channels_last()
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

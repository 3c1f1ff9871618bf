//! Size of a network's feature map as a function of the image size.

use super::attributes::{int, ints, string};
use super::view::GraphView;
use super::{GraphError, GraphProto, NodeProto};

/// Geometry of a convolution or pooling along one axis, pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Including dilation.
    pub kernel: usize,
    pub stride: usize,
    /// Sum of the padding at both ends.
    pub padding: usize,
}

impl SlidingWindow {
    /// Returns the output length for an input of `side` pixels; `None` if the window does not fit.
    #[must_use]
    pub fn apply(&self, side: usize) -> Option<usize> {
        let range = (side + self.padding).checked_sub(self.kernel)?;
        Some(range / self.stride + 1)
    }

    /// Returns whether input and output always have the same length.
    fn keeps_size(&self) -> bool {
        self.stride == 1 && self.padding + 1 == self.kernel
    }
}

/// Returns the windows between image and output that change the size, in order.
///
/// Branches that join have the same size, so the path of the first inputs is followed. The windows
/// along height and width must be equal, so that a square image gives a square feature map.
///
/// # Errors
///
/// [`GraphError::Invalid`] names an operator whose effect on the size is unknown.
pub fn windows(graph: &GraphProto) -> Result<Vec<SlidingWindow>, GraphError> {
    let view = GraphView::new(graph)?;
    let mut found: [Vec<SlidingWindow>; 2] = <_>::default();
    let mut name = graph.output.first().map_or("", |o| o.name.as_str());
    for _ in 0..graph.node.len() {
        let Some(node) = view.producer(name).map(|index| &graph.node[index]) else {
            break;
        };
        let computed = |name: &&str| view.tensor(name).is_none();
        let filters = node.input.get(1).and_then(|name| view.tensor(name));
        let dims = filters.map(|filters| filters.dims.as_slice());
        for (axis, found) in found.iter_mut().enumerate() {
            found.extend(window(node, dims, axis)?.filter(|window| !window.keeps_size()));
        }
        name = node
            .input
            .iter()
            .map(String::as_str)
            .find(computed)
            .unwrap_or("");
    }
    let [mut height, width] = found;
    if height != width {
        let reason = "height and width change differently, but rgby needs square feature maps";
        return Err(GraphError::Invalid(reason.into()));
    }
    height.reverse();
    Ok(height)
}

/// Returns the window of a node along an axis (0 height, 1 width), or `None` for element-wise nodes.
fn window(
    node: &NodeProto,
    filters: Option<&[i64]>,
    axis: usize,
) -> Result<Option<SlidingWindow>, GraphError> {
    let unknown = |reason: &str| {
        GraphError::Invalid(format!(
            "the output size of {} `{}` is unknown: {reason}",
            node.op_type, node.name
        ))
    };
    let kernel = match node.op_type.as_str() {
        "Conv" => filters.map_or(&[][..], |dims| dims.get(2..).unwrap_or(&[])),
        "MaxPool" | "AveragePool" => &ints(node, "kernel_shape", &[]),
        "Relu" | "BatchNormalization" | "Add" | "Mul" | "Concat" | "Identity" => return Ok(None),
        _ => return Err(unknown("the operator is not supported in a backbone")),
    };
    let auto_pad = string(node, "auto_pad", "NOTSET");
    if !matches!(auto_pad.as_str(), "NOTSET" | "") {
        return Err(unknown("the padding depends on the image size"));
    }
    if int(node, "ceil_mode", 0) != 0 {
        return Err(unknown("ceil_mode is set"));
    }
    let (strides, dilations) = (
        ints(node, "strides", &[1, 1]),
        ints(node, "dilations", &[1, 1]),
    );
    let pads = ints(node, "pads", &[0; 4]);
    let ([_, _], [_, _], [_, _], [_, _, _, _]) = (kernel, &strides[..], &dilations[..], &pads[..])
    else {
        return Err(unknown("it has other than two spatial axes"));
    };
    let count = |value: i64| usize::try_from(value).map_err(|_| unknown("a size is negative"));
    let (side, stride) = (count(kernel[axis])?, count(strides[axis])?);
    if side == 0 || stride == 0 {
        return Err(unknown("a size is 0"));
    }
    Ok(Some(SlidingWindow {
        kernel: (side - 1) * count(dilations[axis])? + 1,
        stride,
        padding: count(pads[axis])? + count(pads[axis + 2])?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::set_ints;
    use crate::tests::{GraphBuilder, weight};

    fn window(kernel: usize, stride: usize, padding: usize) -> SlidingWindow {
        SlidingWindow {
            kernel,
            stride,
            padding,
        }
    }

    #[test]
    fn output_length_follows_the_specification() {
        assert_eq!(window(7, 2, 6).apply(224), Some(112));
        assert_eq!(window(3, 2, 0).apply(299), Some(149));
        assert_eq!(window(2, 2, 0).apply(7), Some(3));
        assert_eq!(window(3, 1, 0).apply(2), None);
    }

    #[test]
    fn windows_follow_the_first_inputs() {
        let mut graph = GraphBuilder::new()
            .weight(weight("stem", &[2, 3, 7, 7]))
            .weight(weight("row", &[2, 2, 1, 3]))
            .node("Conv", &["image", "stem"], "a")
            .node("Relu", &["a"], "b")
            .node("Conv", &["b", "row"], "c")
            .node("Add", &["c", "b"], "y")
            .graph("y");
        set_ints(&mut graph.node[0], "strides", &[2, 2]);
        set_ints(&mut graph.node[0], "pads", &[3, 3, 3, 3]);
        // Three columns and one row: its padding keeps the size.
        set_ints(&mut graph.node[2], "pads", &[0, 1, 0, 1]);
        assert_eq!(windows(&graph).unwrap(), [window(7, 2, 6)]);

        set_ints(&mut graph.node[2], "pads", &[0, 0, 0, 0]);
        let message = windows(&graph).unwrap_err().to_string();
        assert!(message.contains("height and width"), "{message}");
        graph.node[1].op_type = "Resize".into();
        let message = windows(&graph).unwrap_err().to_string();
        assert!(message.contains("Resize"), "{message}");
    }
}

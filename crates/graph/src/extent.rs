//! How large a feature map a network makes of an image.

use super::attributes::{int, ints, string};
use super::view::View;
use super::{GraphError, GraphProto, NodeProto};

/// What one convolution or pooling does to the side of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Side of the window, dilation included.
    pub kernel: usize,
    /// Step from window to window.
    pub stride: usize,
    /// Pixels added at both ends together.
    pub padding: usize,
}

impl Window {
    /// Side of what it makes of `side` pixels; none if the window does not fit.
    #[must_use]
    pub fn apply(&self, side: usize) -> Option<usize> {
        let room = (side + self.padding).checked_sub(self.kernel)?;
        Some(room / self.stride + 1)
    }

    /// Leaves every image as large as it is.
    fn is_idle(&self) -> bool {
        self.stride == 1 && self.padding + 1 == self.kernel
    }
}

/// The windows between the image and the graph's output that change an image's size, in order.
///
/// Where branches join they have the same size, so that any path will do: it is that of the first
/// inputs. Windows along height and along width must be the same, so that a square stays a square.
///
/// # Errors
///
/// [`GraphError::Invalid`] names an operator whose effect on the size is not known.
pub fn windows(graph: &GraphProto) -> Result<Vec<Window>, GraphError> {
    let view = View::new(graph)?;
    let mut found: [Vec<Window>; 2] = <_>::default();
    let mut name = graph.output.first().map_or("", |o| o.name.as_str());
    for _ in 0..graph.node.len() {
        let Some(node) = view.producer(name).map(|index| &graph.node[index]) else {
            break;
        };
        let computed = |name: &&str| view.tensor(name).is_none();
        let filters = node.input.get(1).and_then(|name| view.tensor(name));
        let dims = filters.map(|filters| filters.dims.as_slice());
        for (axis, found) in found.iter_mut().enumerate() {
            found.extend(window(node, dims, axis)?.filter(|window| !window.is_idle()));
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
        let reason = "height and width shrink differently; rgby takes square feature maps";
        return Err(GraphError::Invalid(reason.into()));
    }
    height.reverse();
    Ok(height)
}

/// What a node does along an axis (0 height, 1 width); none if it leaves sizes alone.
fn window(
    node: &NodeProto,
    filters: Option<&[i64]>,
    axis: usize,
) -> Result<Option<Window>, GraphError> {
    let unclear = |what: &str| {
        GraphError::Invalid(format!(
            "the size of what {} `{}` makes is not known: {what}",
            node.op_type, node.name
        ))
    };
    let kernel = match node.op_type.as_str() {
        "Conv" => filters.map_or(&[][..], |dims| dims.get(2..).unwrap_or(&[])),
        "MaxPool" | "AveragePool" => &ints(node, "kernel_shape", &[]),
        "Relu" | "BatchNormalization" | "Add" | "Mul" | "Concat" | "Identity" => return Ok(None),
        _ => return Err(unclear("the operator is not one of a backbone's")),
    };
    let auto_pad = string(node, "auto_pad", "NOTSET");
    if !matches!(auto_pad.as_str(), "NOTSET" | "") {
        return Err(unclear("its padding depends on the image"));
    }
    if int(node, "ceil_mode", 0) != 0 {
        return Err(unclear("it rounds up"));
    }
    let (strides, dilations) = (
        ints(node, "strides", &[1, 1]),
        ints(node, "dilations", &[1, 1]),
    );
    let pads = ints(node, "pads", &[0; 4]);
    let ([_, _], [_, _], [_, _], [_, _, _, _]) = (kernel, &strides[..], &dilations[..], &pads[..])
    else {
        return Err(unclear("it has not two axes"));
    };
    let count = |value: i64| usize::try_from(value).map_err(|_| unclear("a size is negative"));
    let (side, stride) = (count(kernel[axis])?, count(strides[axis])?);
    if side == 0 || stride == 0 {
        return Err(unclear("a size is 0"));
    }
    Ok(Some(Window {
        kernel: (side - 1) * count(dilations[axis])? + 1,
        stride,
        padding: count(pads[axis])? + count(pads[axis + 2])?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::set_ints;
    use crate::tests::{Sketch, weight};

    fn window(kernel: usize, stride: usize, padding: usize) -> Window {
        Window {
            kernel,
            stride,
            padding,
        }
    }

    #[test]
    fn a_side_shrinks_as_the_specification_says() {
        assert_eq!(window(7, 2, 6).apply(224), Some(112));
        assert_eq!(window(3, 2, 0).apply(299), Some(149));
        assert_eq!(window(2, 2, 0).apply(7), Some(3));
        assert_eq!(window(3, 1, 0).apply(2), None);
    }

    #[test]
    fn windows_are_read_along_the_first_inputs() {
        let mut graph = Sketch::new()
            .weight(weight("stem", &[2, 3, 7, 7]))
            .weight(weight("row", &[2, 2, 1, 3]))
            .node("Conv", &["image", "stem"], "a")
            .node("Relu", &["a"], "b")
            .node("Conv", &["b", "row"], "c")
            .node("Add", &["c", "b"], "y")
            .graph("y");
        set_ints(&mut graph.node[0], "strides", &[2, 2]);
        set_ints(&mut graph.node[0], "pads", &[3, 3, 3, 3]);
        // Three columns wide, one row high: its padding keeps the size.
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

//! Evaluates the parts of a graph that do not depend on the image.

use std::cell::Cell;
use std::collections::HashMap;

use super::arithmetic::{ConstantArray, ConstantData};
use crate::attributes::{attribute, int, ints};
use crate::tensor::{FLOAT, numel};
use crate::view::GraphView;
use crate::{GraphError, GraphProto, NodeProto, TensorProto};

/// Limits of constant folding, in array elements.
#[derive(Clone, Copy)]
struct FoldingBudget {
    /// Elements read or computed. There may be many small nodes that read a large array.
    handled: usize,
    /// Elements stored in the end.
    kept: usize,
}

const BUDGET: FoldingBudget = FoldingBudget {
    handled: 1 << 28,
    kept: 1 << 26,
};

/// Stores the value of every `Constant` node as an initializer.
///
/// # Errors
///
/// A constant of strings or a sparse tensor.
pub(crate) fn constants_to_initializers(graph: &mut GraphProto) -> Result<(), GraphError> {
    let mut tensors = Vec::new();
    for node in graph.node.iter().filter(|node| node.op_type == "Constant") {
        let name = node.output.first().map_or("", String::as_str);
        let mut tensor = constant(node).ok_or_else(|| GraphError::Patch {
            patch: "storing constants",
            reason: format!("Constant `{name}` is not a tensor of numbers"),
        })??;
        name.clone_into(&mut tensor.name);
        tensors.push(tensor);
    }
    graph.node.retain(|node| node.op_type != "Constant");
    graph.initializer.append(&mut tensors);
    Ok(())
}

fn constant(node: &NodeProto) -> Option<Result<TensorProto, GraphError>> {
    if let Some(tensor) = attribute(node, "value").and_then(|value| value.t.as_ref()) {
        return Some(Ok(tensor.clone()));
    }
    let floats = |dims: &[usize], values: Vec<f32>| ConstantArray {
        dims: dims.to_vec(),
        data: ConstantData::Float(values),
    };
    let array = if let Some(value) = attribute(node, "value_float") {
        floats(&[], vec![value.f])
    } else if let Some(values) = attribute(node, "value_floats") {
        floats(&[values.floats.len()], values.floats.clone())
    } else if let Some(value) = attribute(node, "value_int") {
        ConstantArray {
            dims: Vec::new(),
            data: ConstantData::Int(vec![value.i]),
        }
    } else {
        ConstantArray::ints(attribute(node, "value_ints")?.ints.clone())
    };
    Some(array.write(""))
}

/// Evaluates nodes that depend on stored values only.
///
/// PyTorch's dynamo exporter writes zero biases and expanded BatchNorm parameters as such nodes. A
/// node that is not supported, or whose result is too large, is kept.
///
/// # Errors
///
/// A cycle.
pub(crate) fn fold_constants(graph: &mut GraphProto) -> Result<(), GraphError> {
    fold_within(BUDGET, graph)
}

fn fold_within(budget: FoldingBudget, graph: &mut GraphProto) -> Result<(), GraphError> {
    let mut folded: HashMap<String, ConstantArray> = HashMap::new();
    let handled = Cell::new(budget.handled);
    // An exhausted budget stays at 0, so that no further large array is read.
    let handle = |len: usize| {
        let left = handled.get().checked_sub(len.max(1));
        handled.set(left.unwrap_or(0));
        left
    };
    let mut kept = budget.kept;
    let view = GraphView::new(graph)?;
    for index in view.order()? {
        let node = &graph.node[index];
        let known = |name: &String| {
            let computed = folded.get(name);
            let stored = || view.tensor(name);
            let len = match computed {
                Some(array) => array.len(),
                None => numel(stored()?).ok()?,
            };
            handle(len)?;
            computed.cloned().or_else(|| ConstantArray::read(stored()?))
        };
        if let (Some(array), [output]) = (fold(node, known), &node.output[..])
            && handle(array.len()).is_some()
            && let Some(left) = kept.checked_sub(array.len().max(1))
        {
            kept = left;
            folded.insert(output.clone(), array);
        }
    }
    let is_folded = |node: &NodeProto| {
        let output = node.output.first();
        output.is_some_and(|output| folded.contains_key(output))
    };
    let tensors = graph.node.iter().filter(|node| is_folded(node));
    let tensors = tensors
        .map(|node| folded[&node.output[0]].write(&node.output[0]))
        .collect::<Result<Vec<_>, _>>()?;
    graph.node.retain(|node| !is_folded(node));
    graph.initializer.extend(tensors);
    Ok(())
}

/// Returns the node's result, if its inputs are known and exporters apply the operator to weights.
fn fold(
    node: &NodeProto,
    known: impl Fn(&String) -> Option<ConstantArray>,
) -> Option<ConstantArray> {
    let input = |index: usize| node.input.get(index).and_then(&known);
    // An attribute until opset 12, an input from opset 13.
    let axes = || match node.input.get(1) {
        Some(name) => integers(&known(name)?),
        None => Some(ints(node, "axes", &[])),
    };
    match node.op_type.as_str() {
        "Shape" => {
            let lengths: Vec<i64> = input(0)?.dims.iter().map(|&dim| dim as i64).collect();
            let rank = lengths.len() as i64;
            let place =
                |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank);
            let range = place(int(node, "start", 0))..place(int(node, "end", i64::MAX));
            let range = range.start as usize..range.end as usize;
            Some(ConstantArray::ints(lengths.get(range)?.to_vec()))
        }
        "Expand" => {
            let shape = integers(&input(1)?)?;
            let dims = shape.iter().map(|&dim| usize::try_from(dim).ok());
            input(0)?.broadcast(&dims.collect::<Option<Vec<_>>>()?)
        }
        "Reshape" => input(0)?.reshape(&integers(&input(1)?)?),
        "Unsqueeze" => unsqueeze(&input(0)?, &axes()?),
        "Squeeze" => squeeze(&input(0)?, &axes()?),
        "Transpose" => {
            let array = input(0)?;
            let reversed: Vec<i64> = (0..array.dims.len() as i64).rev().collect();
            let perm = ints(node, "perm", &reversed);
            let perm = perm.iter().map(|&axis| usize::try_from(axis).ok());
            array.transpose(&perm.collect::<Option<Vec<_>>>()?)
        }
        // Only casts to float32 occur between weights and their use.
        "Cast" => (int(node, "to", 0) == i64::from(FLOAT)).then(|| input(0)?.map(|x| x))?,
        "CastLike" => input(0)?.map(|x| x),
        "Sqrt" => input(0)?.map(f32::sqrt),
        "Reciprocal" => input(0)?.map(f32::recip),
        "Neg" => input(0)?.map(|x| -x),
        "Add" => input(0)?.zip(&input(1)?, |a, b| a + b),
        "Sub" => input(0)?.zip(&input(1)?, |a, b| a - b),
        "Mul" => input(0)?.zip(&input(1)?, |a, b| a * b),
        "Div" => input(0)?.zip(&input(1)?, |a, b| a / b),
        _ => None,
    }
}

fn integers(array: &ConstantArray) -> Option<Vec<i64>> {
    match &array.data {
        ConstantData::Int(values) => Some(values.clone()),
        ConstantData::Float(_) => None,
    }
}

fn unsqueeze(array: &ConstantArray, axes: &[i64]) -> Option<ConstantArray> {
    let rank = array.dims.len() + axes.len();
    let mut at = positions(axes, rank)?;
    at.sort_unstable();
    let mut dims: Vec<i64> = array.dims.iter().map(|&dim| dim as i64).collect();
    for axis in at {
        (axis <= dims.len()).then(|| dims.insert(axis, 1))?;
    }
    array.reshape(&dims)
}

fn squeeze(array: &ConstantArray, axes: &[i64]) -> Option<ConstantArray> {
    let at = positions(axes, array.dims.len())?;
    let mut left = Vec::new();
    for (axis, &dim) in array.dims.iter().enumerate() {
        if dim != 1 || !(axes.is_empty() || at.contains(&axis)) {
            left.push(dim as i64);
        }
    }
    array.reshape(&left)
}

fn positions(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let rank = rank as i64;
    axes.iter()
        .map(|&given| {
            let place = if given < 0 {
                given.checked_add(rank)?
            } else {
                given
            };
            (0..rank).contains(&place).then_some(place as usize)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::values;
    use crate::tests::{GraphBuilder, weight, with_int, with_ints};

    #[test]
    fn folds_a_zero_bias_that_nodes_compute() {
        // PyTorch's dynamo exporter writes a convolution without bias like this.
        let mut graph = GraphBuilder::new()
            .weight(weight("w", &[4, 3, 1, 1]))
            .node("Shape", &["w"], "shape")
            .with(with_int("start", 0))
            .with(with_int("end", 1))
            .node("Constant", &[], "one")
            .with(with_ints("value_ints", &[1]))
            .node("Expand", &["shape", "one"], "length")
            .node("CastLike", &["zero", "image"], "typed")
            .weight(scalar("zero", 0.0))
            .node("Expand", &["typed", "length"], "bias")
            .node("Conv", &["image", "w", "bias"], "y")
            .graph("y");
        constants_to_initializers(&mut graph).unwrap();
        fold_constants(&mut graph).unwrap();
        assert_eq!(graph.node.len(), 1);
        let bias = graph.initializer.iter().find(|t| t.name == "bias").unwrap();
        assert_eq!(bias.dims, [4]);
        assert_eq!(values(bias).unwrap(), [0.0; 4]);
    }

    fn scalar(name: &str, value: f32) -> TensorProto {
        ConstantArray {
            dims: vec![],
            data: ConstantData::Float(vec![value]),
        }
        .write(name)
        .unwrap()
    }

    #[test]
    fn folds_batch_norm_that_nodes_compute() {
        // scale = 3 / sqrt(4), unsqueezed to [1, 1, 1], then squeezed to [1, 1].
        let mut graph = GraphBuilder::new()
            .weight(scalar("gamma", 3.0))
            .weight(scalar("var", 4.0))
            .node("Sqrt", &["var"], "std")
            .node("Div", &["gamma", "std"], "scale")
            .node("Unsqueeze", &["scale"], "wide")
            .with(with_ints("axes", &[0, 1, 2]))
            .node("Squeeze", &["wide"], "narrow")
            .with(with_ints("axes", &[1]))
            .node("Mul", &["image", "narrow"], "y")
            .graph("y");
        fold_constants(&mut graph).unwrap();
        let scale = graph
            .initializer
            .iter()
            .find(|t| t.name == "narrow")
            .unwrap();
        assert_eq!(scale.dims, [1, 1]);
        assert_eq!(values(scale).unwrap(), [1.5]);
    }

    #[test]
    fn keeps_a_node_whose_result_is_too_large() {
        let mut graph = GraphBuilder::new()
            .weight(scalar("zero", 0.0))
            .node("Constant", &[], "huge")
            .with(with_ints("value_ints", &[1 << 31, 1 << 31]))
            .node("Expand", &["zero", "huge"], "much")
            .node("Add", &["image", "much"], "y")
            .graph("y");
        constants_to_initializers(&mut graph).unwrap();
        fold_constants(&mut graph).unwrap();
        assert_eq!(graph.node.len(), 2);
    }

    #[test]
    fn bounds_the_elements_that_many_small_nodes_read() {
        let mut builder = GraphBuilder::new().weight(weight("w", &[10, 10]));
        let names: Vec<String> = (0..9).map(|index| format!("shape{index}")).collect();
        for name in &names {
            builder = builder.node("Shape", &["w"], name);
        }
        let mut graph = builder.graph("shape0");
        // Each reads 100 elements and computes 2. The rest is too small for a fourth node, and no
        // further node is folded after the first that exceeds it.
        let budget = FoldingBudget {
            handled: 400,
            kept: 1000,
        };
        fold_within(budget, &mut graph).unwrap();
        assert_eq!(graph.node.len(), 6);
        let mut large = GraphBuilder::new()
            .weight(scalar("zero", 0.0))
            .weight(weight("w", &[3, 5]))
            .node("Shape", &["w"], "shape")
            .node("Expand", &["zero", "shape"], "much")
            .node("Neg", &["zero"], "little")
            .node("Add", &["much", "little"], "y")
            .graph("y");
        let budget = FoldingBudget {
            handled: 30,
            kept: 1000,
        };
        fold_within(budget, &mut large).unwrap();
        let left: Vec<_> = large.node.iter().map(|node| &*node.op_type).collect();
        assert!(
            left.contains(&"Expand") && left.contains(&"Add"),
            "{left:?}"
        );
    }

    #[test]
    fn refuses_a_constant_of_strings() {
        let mut graph = GraphBuilder::new()
            .node("Constant", &[], "text")
            .graph("text");
        let before = graph.clone();
        let message = constants_to_initializers(&mut graph)
            .unwrap_err()
            .to_string();
        assert!(message.contains("`text`"), "{message}");
        assert_eq!(graph, before);
    }
}

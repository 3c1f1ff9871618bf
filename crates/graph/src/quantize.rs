//! A float32 graph becomes one that convolves and multiplies in 8-bit integers.
//!
//! The form is QDQ: `QuantizeLinear` and `DequantizeLinear` around what is to run in integers, which
//! any ONNX engine can run and ONNX Runtime fuses into integer kernels. Activations are uint8 with
//! one scale and zero point each, which is what its kernels for x86 take; weights are int8, symmetric,
//! with a scale for each output channel; biases are int32.
//!
//! Three steps: [`plan`] says which values become integers, [`observing`] makes a graph that computes
//! the least and the greatest number of each, [`quantize`] rewrites the graph by what was seen.

mod plan;

use std::collections::HashMap;

use super::attributes::{int, set_int};
use super::surgery::prune;
use super::tensor::{FLOAT, INT8, INT32, INT64, UINT8, set_data, set_values, values};
use super::{GraphError, GraphProto, NodeProto, TensorProto};
pub use plan::{QuantizationPlan, plan};

/// Name of the output of [`observing`]'s graph.
pub const EXTREMES: &str = "extremes";

/// No bias is more steps than this, which leaves room for the products in an int32.
const LARGEST_BIAS: f32 = (1_u32 << 30) as f32;

/// The least and the greatest number that a value held.
pub type ValueRange = (f32, f32);

/// A graph whose one output, [`EXTREMES`] `[2 · activations]`, holds for a batch the least and the
/// greatest number of each of the plan's activations. Nothing but two numbers of each leaves it, so
/// that it needs no more memory than the network itself.
#[must_use]
pub fn observing(graph: &GraphProto, plan: &QuantizationPlan) -> GraphProto {
    let mut graph = graph.clone();
    let mut one = TensorProto::new();
    one.name = "extremes/one".into();
    one.dims = vec![1];
    set_data(&mut one, INT64, 1_i64.to_le_bytes().into_iter());
    graph.initializer.push(one);
    let mut parts = Vec::new();
    for name in &plan.activations {
        for op in ["ReduceMin", "ReduceMax"] {
            let (whole, part) = (format!("{name}/{op}"), format!("{name}/{op}/part"));
            let mut reduce = node(op, &[name], &whole);
            set_int(&mut reduce, "keepdims", 0);
            graph.node.push(reduce);
            graph
                .node
                .push(node("Reshape", &[&whole, "extremes/one"], &part));
            parts.push(part);
        }
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let mut joined = node("Concat", &parts, EXTREMES);
    set_int(&mut joined, "axis", 0);
    graph.node.push(joined);
    graph.output.truncate(1);
    graph.output[0].name = EXTREMES.into();
    let kind = graph.output[0]
        .type_
        .mut_or_insert_default()
        .mut_tensor_type();
    kind.elem_type = FLOAT;
    let dims = &mut kind.shape.mut_or_insert_default().dim;
    dims.truncate(1);
    dims.resize_with(1, <_>::default);
    dims[0].set_dim_value(parts.len() as i64);
    graph
}

/// Rewrites `graph` so that the plan's layers run in integers; `ranges` are those of the plan's
/// activations, in its order.
///
/// # Errors
///
/// A weight that is broken; the graph is as it was.
pub fn quantize(
    graph: &mut GraphProto,
    plan: &QuantizationPlan,
    ranges: &[ValueRange],
) -> Result<(), GraphError> {
    let ranges: HashMap<&str, ValueRange> = plan
        .activations
        .iter()
        .map(String::as_str)
        .zip(ranges.iter().copied())
        .collect();
    let scales: HashMap<&str, Steps> = plan
        .activations
        .iter()
        .map(|name| (name.as_str(), Steps::of(ranges[plan.origin(name)])))
        .collect();
    let mut made = QuantizedValue::default();
    let mut nodes = graph.node.clone();
    for &at in &plan.layers {
        made.layer(graph, &mut nodes[at], &scales)?;
    }
    // What reads a quantised value reads what is left of it; who makes it goes on doing so.
    for name in nodes.iter_mut().flat_map(|node| &mut node.input) {
        if scales.contains_key(name.as_str()) {
            *name = format!("{name}/dequantized");
        }
    }
    let mut written = Vec::with_capacity(nodes.len() * 2);
    for input in &graph.input {
        if let Some(steps) = scales.get(input.name.as_str()) {
            written.extend(made.round_trip(&input.name, *steps));
        }
    }
    written.append(&mut made.nodes);
    for node in nodes {
        let outputs = node.output.clone();
        written.push(node);
        for name in outputs {
            if let Some(steps) = scales.get(name.as_str()) {
                written.extend(made.round_trip(&name, *steps));
            }
        }
    }
    graph.node = written;
    graph.initializer.append(&mut made.tensors);
    prune(graph);
    Ok(())
}

/// How numbers become uint8: `round(value / scale) + zero`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Steps {
    scale: f32,
    zero: u8,
}

impl Steps {
    /// Zero is always among them: padding is made of it.
    fn of((least, greatest): ValueRange) -> Self {
        let (least, greatest) = (f64::from(least.min(0.0)), f64::from(greatest.max(0.0)));
        let scale = ((greatest - least) / 255.0) as f32;
        if scale <= f32::MIN_POSITIVE {
            return Self {
                scale: 1.0,
                zero: 0,
            };
        }
        let zero = (-least * 255.0 / (greatest - least)).round() as u8;
        Self { scale, zero }
    }
}

/// What is added to the graph.
#[derive(Default)]
struct QuantizedValue {
    tensors: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
}

/// Integers as they are stored.
struct Integers {
    /// `TensorProto.DataType`.
    kind: i32,
    /// Bytes of one.
    width: usize,
    bytes: Vec<u8>,
}

impl QuantizedValue {
    /// Gives a layer integer weights and an integer bias.
    fn layer(
        &mut self,
        graph: &GraphProto,
        node: &mut NodeProto,
        scales: &HashMap<&str, Steps>,
    ) -> Result<(), GraphError> {
        let stored = |name: &str| graph.initializer.iter().find(|tensor| tensor.name == name);
        let Some(steps) = scales.get(node.input[0].as_str()) else {
            return Ok(());
        };
        let Some(weight) = stored(&node.input[1]) else {
            return Ok(());
        };
        let transposed = node.op_type == "Gemm" && int(node, "transB", 0) != 0;
        let axis = usize::from(node.op_type != "Conv" && !transposed);
        let bias = node.input.get(2).filter(|_| node.op_type == "Conv");
        let bias = bias.and_then(|name| stored(name));
        let shift = bias.map(values).transpose()?.unwrap_or_default();
        let least = shift
            .iter()
            .map(|shift| shift.abs() / LARGEST_BIAS / steps.scale);
        let scales = self.weight(weight, axis, least.collect())?;
        node.input[1] = format!("{}/dequantized", weight.name);
        if let Some(bias) = bias {
            let products: Vec<f32> = scales.iter().map(|scale| scale * steps.scale).collect();
            node.input[2] = self.bias(bias, &shift, &products);
        }
        Ok(())
    }

    /// An int8 weight with a scale for each index of `axis`, at least as large as in `least`, which
    /// may be empty; returns the scales.
    fn weight(
        &mut self,
        weight: &TensorProto,
        axis: usize,
        least: Vec<f32>,
    ) -> Result<Vec<f32>, GraphError> {
        let numbers = values(weight)?;
        let channels = weight.dims[axis] as usize;
        let inner: i64 = weight.dims[axis + 1..].iter().product();
        let channel = |at: usize| at / (inner as usize).max(1) % channels;
        let mut scales = least;
        scales.resize(channels, 0.0);
        for (at, number) in numbers.iter().enumerate() {
            let scale = &mut scales[channel(at)];
            *scale = scale.max(number.abs() / 127.0);
        }
        for scale in &mut scales {
            if *scale <= f32::MIN_POSITIVE {
                *scale = 1.0;
            }
        }
        let rounded = numbers.iter().enumerate().map(|(at, number)| {
            let steps = (number / scales[channel(at)]).round();
            steps.clamp(-127.0, 127.0) as i8
        });
        let bytes: Vec<u8> = rounded.flat_map(i8::to_le_bytes).collect();
        self.dequantized(
            weight,
            Integers {
                kind: INT8,
                width: 1,
                bytes,
            },
            &scales,
            axis,
        );
        Ok(scales)
    }

    /// An int32 bias in steps of the products that it is added to.
    fn bias(&mut self, bias: &TensorProto, shift: &[f32], scales: &[f32]) -> String {
        let rounded = shift
            .iter()
            .zip(scales)
            .map(|(number, scale)| (f64::from(*number) / f64::from(*scale)).round() as i32);
        let bytes: Vec<u8> = rounded.flat_map(i32::to_le_bytes).collect();
        self.dequantized(
            bias,
            Integers {
                kind: INT32,
                width: 4,
                bytes,
            },
            scales,
            0,
        )
    }

    /// Stores integers for a tensor, and a node that makes numbers of them.
    fn dequantized(
        &mut self,
        tensor: &TensorProto,
        integers: Integers,
        scales: &[f32],
        axis: usize,
    ) -> String {
        let kind = integers.kind;
        let name = &tensor.name;
        let named = |part: &str| format!("{name}/{part}");
        let mut stored = tensor.clone();
        stored.name = named("quantized");
        set_data(&mut stored, kind, integers.bytes.into_iter());
        let mut zero = vector(&named("zero"), scales.len());
        let zeros = std::iter::repeat_n(0, scales.len() * integers.width);
        set_data(&mut zero, kind, zeros);
        let mut scale = vector(&named("scale"), scales.len());
        set_values(&mut scale, scales);
        let output = named("dequantized");
        let inputs = [&*stored.name, &scale.name, &zero.name];
        let mut node = node("DequantizeLinear", &inputs, &output);
        set_int(&mut node, "axis", axis as i64);
        self.nodes.push(node);
        self.tensors.extend([stored, scale, zero]);
        output
    }

    /// Nodes that make an activation uint8 and back.
    fn round_trip(&mut self, name: &str, steps: Steps) -> [NodeProto; 2] {
        let named = |part: &str| format!("{name}/{part}");
        let mut scale = vector(&named("scale"), 1);
        set_values(&mut scale, &[steps.scale]);
        let mut zero = vector(&named("zero"), 1);
        set_data(&mut zero, UINT8, [steps.zero].into_iter());
        // One for the whole tensor.
        scale.dims.clear();
        zero.dims.clear();
        let (quantized, back) = (named("quantized"), named("dequantized"));
        let nodes = [
            node(
                "QuantizeLinear",
                &[name, &scale.name, &zero.name],
                &quantized,
            ),
            node(
                "DequantizeLinear",
                &[&quantized, &scale.name, &zero.name],
                &back,
            ),
        ];
        self.tensors.extend([scale, zero]);
        nodes
    }
}

fn vector(name: &str, length: usize) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = vec![length as i64];
    tensor
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = op.into();
    node.name = format!("{output}/{op}");
    node.input = inputs.iter().map(ToString::to_string).collect();
    node.output.push(output.into());
    node
}

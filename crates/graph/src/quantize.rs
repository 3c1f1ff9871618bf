//! Converts a float32 graph to 8-bit integer convolutions and matrix products.
//!
//! The form is QDQ: `QuantizeLinear` and `DequantizeLinear` around the operators that run in
//! integers. Any ONNX engine runs it, and ONNX Runtime fuses it into integer kernels. Activations
//! are uint8 with one scale and zero point each, as its x86 kernels need. Weights are int8,
//! symmetric, with a scale for each output channel; biases are int32.
//!
//! There are three steps. [`plan`] selects the values to quantize. [`range_observer`] returns a graph
//! that computes the minimum and maximum of each. [`quantize`] rewrites the graph with the observed
//! ranges.

mod plan;

use std::collections::HashMap;

use super::attributes::{int, set_int};
use super::surgery::prune;
use super::tensor::{FLOAT, INT8, INT32, INT64, UINT8, set_data, set_values, values};
use super::{GraphError, GraphProto, NodeProto, TensorProto};
pub use plan::{QuantizationPlan, plan};

/// Output name of the graph that [`range_observer`] returns.
pub const EXTREMES: &str = "extremes";

/// Largest quantized bias. It leaves room for the sum of products in an int32.
const MAX_BIAS: f32 = (1_u32 << 30) as f32;

/// Minimum and maximum of a value.
pub type ValueRange = (f32, f32);

/// Returns a graph that computes the minimum and maximum of each of the plan's activations.
///
/// Its only output is [`EXTREMES`], `[2 · activations]`, over a batch. It needs no more memory than
/// the network itself.
#[must_use]
pub fn range_observer(graph: &GraphProto, plan: &QuantizationPlan) -> GraphProto {
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

/// Rewrites `graph` so that the plan's layers run in integers.
///
/// `ranges` has one entry for each of the plan's activations, in order.
///
/// # Errors
///
/// An invalid weight; the graph is unchanged.
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
    let scales: HashMap<&str, ActivationScale> = plan
        .activations
        .iter()
        .map(|name| {
            (
                name.as_str(),
                ActivationScale::new(ranges[plan.origin(name)]),
            )
        })
        .collect();
    let mut added = AddedNodes::default();
    let mut nodes = graph.node.clone();
    for &at in &plan.layers {
        added.layer(graph, &mut nodes[at], &scales)?;
    }
    // Readers read the dequantized value; its producer keeps the name.
    for name in nodes.iter_mut().flat_map(|node| &mut node.input) {
        if scales.contains_key(name.as_str()) {
            *name = format!("{name}/dequantized");
        }
    }
    let mut written = Vec::with_capacity(nodes.len() * 2);
    for input in &graph.input {
        if let Some(activation) = scales.get(input.name.as_str()) {
            written.extend(added.round_trip(&input.name, *activation));
        }
    }
    written.append(&mut added.nodes);
    for node in nodes {
        let outputs = node.output.clone();
        written.push(node);
        for name in outputs {
            if let Some(activation) = scales.get(name.as_str()) {
                written.extend(added.round_trip(&name, *activation));
            }
        }
    }
    graph.node = written;
    graph.initializer.append(&mut added.tensors);
    prune(graph);
    Ok(())
}

/// Quantization of an activation to uint8: `round(value / scale) + zero`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct ActivationScale {
    scale: f32,
    zero: u8,
}

impl ActivationScale {
    /// The range is extended to contain zero, the value of padding.
    fn new((minimum, maximum): ValueRange) -> Self {
        let (minimum, maximum) = (f64::from(minimum.min(0.0)), f64::from(maximum.max(0.0)));
        let scale = ((maximum - minimum) / 255.0) as f32;
        if scale <= f32::MIN_POSITIVE {
            return Self {
                scale: 1.0,
                zero: 0,
            };
        }
        let zero = (-minimum * 255.0 / (maximum - minimum)).round() as u8;
        Self { scale, zero }
    }
}

/// Initializers and nodes to add to the graph.
#[derive(Default)]
struct AddedNodes {
    tensors: Vec<TensorProto>,
    nodes: Vec<NodeProto>,
}

/// Data of an integer tensor.
struct IntegerData {
    /// `TensorProto.DataType`.
    kind: i32,
    /// Bytes per element.
    width: usize,
    bytes: Vec<u8>,
}

impl AddedNodes {
    /// Replaces weights and bias of a layer by dequantized integers.
    fn layer(
        &mut self,
        graph: &GraphProto,
        node: &mut NodeProto,
        scales: &HashMap<&str, ActivationScale>,
    ) -> Result<(), GraphError> {
        let stored = |name: &str| graph.initializer.iter().find(|tensor| tensor.name == name);
        let Some(activation) = scales.get(node.input[0].as_str()) else {
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
        let min_scales = shift
            .iter()
            .map(|shift| shift.abs() / MAX_BIAS / activation.scale);
        let scales = self.weight(weight, axis, min_scales.collect())?;
        node.input[1] = format!("{}/dequantized", weight.name);
        if let Some(bias) = bias {
            let products: Vec<f32> = scales
                .iter()
                .map(|scale| scale * activation.scale)
                .collect();
            node.input[2] = self.bias(bias, &shift, &products);
        }
        Ok(())
    }

    /// Adds an int8 weight with a scale for each index of `axis`; returns the scales.
    ///
    /// A scale is at least that of `min_scales`, which may be empty.
    fn weight(
        &mut self,
        weight: &TensorProto,
        axis: usize,
        min_scales: Vec<f32>,
    ) -> Result<Vec<f32>, GraphError> {
        let numbers = values(weight)?;
        let channels = weight.dims[axis] as usize;
        let inner: i64 = weight.dims[axis + 1..].iter().product();
        let channel = |at: usize| at / (inner as usize).max(1) % channels;
        let mut scales = min_scales;
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
            IntegerData {
                kind: INT8,
                width: 1,
                bytes,
            },
            &scales,
            axis,
        );
        Ok(scales)
    }

    /// Adds an int32 bias with the scales of the products; returns the dequantized name.
    fn bias(&mut self, bias: &TensorProto, shift: &[f32], scales: &[f32]) -> String {
        let rounded = shift
            .iter()
            .zip(scales)
            .map(|(number, scale)| (f64::from(*number) / f64::from(*scale)).round() as i32);
        let bytes: Vec<u8> = rounded.flat_map(i32::to_le_bytes).collect();
        self.dequantized(
            bias,
            IntegerData {
                kind: INT32,
                width: 4,
                bytes,
            },
            scales,
            0,
        )
    }

    /// Adds integers for a tensor and the node that dequantizes them; returns its output.
    fn dequantized(
        &mut self,
        tensor: &TensorProto,
        integers: IntegerData,
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

    /// Returns nodes that quantize an activation to uint8 and dequantize it again.
    fn round_trip(&mut self, name: &str, activation: ActivationScale) -> [NodeProto; 2] {
        let named = |part: &str| format!("{name}/{part}");
        let mut scale = vector(&named("scale"), 1);
        set_values(&mut scale, &[activation.scale]);
        let mut zero = vector(&named("zero"), 1);
        set_data(&mut zero, UINT8, [activation.zero].into_iter());
        // Scalars, for the whole tensor.
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

//! The operations as an extension of Burn's CPU backend, with and without gradients.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Flex, TensorMetadata, backend_extension};
use burn::tensor::TensorData;
use burn::tensor::ops::ConvOptions;

use super::convolve::{bias_gradient, convolve, filters_gradient, input_gradient};
use super::gemm::Matrix;
use super::geometry::Geometry;
use super::normalize::{Moments, NormShape, ScaleShift, normalize, normalize_gradient};
use super::{activate, buffers};

/// How a layer normalises.
#[derive(Debug, Clone, Copy)]
pub struct NormRule {
    /// Added to a variance.
    pub epsilon: f64,
    /// Whether ReLU follows.
    pub relu: bool,
}

/// Operations on contiguous float32 tensors in the CPU's memory.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    /// The convolution of `[N, C, H, W]` by `[K, C, h, w]` with the bias `[K]`, or none if it is
    /// empty; a shape that [`Geometry`] refuses is a panic.
    fn fused_conv2d(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// `[N, C, H, W]` normalised by its own statistics, the mean, and the biased variance.
    fn fused_batch_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        rule: NormRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// `max(0, input)`.
    fn fused_relu(input: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// The values in order.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("operands are contiguous float32")
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// The same values, contiguous.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Gives the memory to the next operation, unless somebody else holds it.
fn release(tensor: FlexTensor) {
    if let Some(values) = owned(tensor) {
        buffers::give(values);
    }
}

/// The values, if nobody else holds them.
fn owned(tensor: FlexTensor) -> Option<Vec<f32>> {
    let whole = tensor.bytes().len() == tensor.shape().num_elements() * size_of::<f32>();
    let alone = whole && tensor.is_unique() && tensor.is_contiguous();
    alone
        .then(|| tensor.into_data().try_into_vec().ok())
        .flatten()
}

/// Memory of its own for as many values as the tensor has: the tensor's, which holds them, if nobody
/// else has it; else any, and the values beside it.
fn writable(tensor: FlexTensor) -> (Vec<f32>, Option<FlexTensor>) {
    let tensor = contiguous(tensor);
    let length = tensor.shape().num_elements();
    if tensor.is_unique() && tensor.bytes().len() == length * size_of::<f32>() {
        let data = tensor.into_data();
        return (data.try_into_vec().expect("operands are float32"), None);
    }
    (buffers::take(length), Some(tensor))
}

fn geometry(input: &FlexTensor, filters: &FlexTensor, options: &ConvOptions<2>) -> Geometry {
    let (input, filters) = (input.shape().dims(), filters.shape().dims());
    Geometry::new(input, filters, options).expect("the caller asked for a plain convolution")
}

fn conv2d(
    geometry: &Geometry,
    input: &FlexTensor,
    filters: &FlexTensor,
    bias: &FlexTensor,
) -> FlexTensor {
    let bias = Some(values(bias)).filter(|bias| !bias.is_empty());
    let depth = geometry.inputs * geometry.taps();
    let filters = Matrix::rows(values(filters), [geometry.outputs, depth]);
    let output = convolve(geometry, values(input), filters, bias);
    let [height, width] = geometry.to;
    tensor(output, &[geometry.batch, geometry.outputs, height, width])
}

/// A layer and its input.
#[derive(Debug)]
struct Normalized {
    input: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    moments: Moments,
    rule: NormRule,
}

impl Normalized {
    fn new(input: FlexTensor, gamma: FlexTensor, beta: FlexTensor, rule: NormRule) -> Self {
        Self {
            input: contiguous(input),
            gamma: contiguous(gamma),
            beta: contiguous(beta),
            moments: Moments::default(),
            rule,
        }
    }

    fn shape(&self) -> NormShape {
        let [_, channels, height, width] = self.input.shape().dims();
        NormShape {
            channels,
            plane: height * width,
        }
    }

    fn affine(&self) -> ScaleShift<'_> {
        ScaleShift {
            gamma: values(&self.gamma),
            beta: values(&self.beta),
            relu: self.rule.relu,
        }
    }

    fn forward(&mut self) -> [FlexTensor; 3] {
        let (input, epsilon) = (values(&self.input), self.rule.epsilon);
        let (output, moments) = normalize(self.shape(), input, self.affine(), epsilon);
        let statistic = |values: &Vec<f32>| tensor(values.clone(), &[values.len()]);
        let statistics = [statistic(&moments.mean), statistic(&moments.variance)];
        self.moments = moments;
        let output = tensor(output, &self.input.shape());
        let [mean, variance] = statistics;
        [output, mean, variance]
    }
}

impl FusedOps for Flex {
    fn fused_conv2d(
        input: FlexTensor,
        filters: FlexTensor,
        bias: FlexTensor,
        options: ConvOptions<2>,
    ) -> FlexTensor {
        let (input, filters) = (contiguous(input), contiguous(filters));
        let geometry = geometry(&input, &filters, &options);
        let output = conv2d(&geometry, &input, &filters, &contiguous(bias));
        release(input);
        output
    }

    fn fused_batch_norm(
        input: FlexTensor,
        gamma: FlexTensor,
        beta: FlexTensor,
        rule: NormRule,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let mut layer = Normalized::new(input, gamma, beta, rule);
        let [output, mean, variance] = layer.forward();
        release(layer.input);
        (output, mean, variance)
    }

    fn fused_relu(input: FlexTensor) -> FlexTensor {
        let shape = input.shape();
        let (mut output, source) = writable(input);
        activate::relu(&mut output, source.as_ref().map(values));
        tensor(output, &shape)
    }
}

/// The values of a tensor with a gradient, contiguous.
fn plain(tensor: &FloatTensor<Autodiff<Flex>>) -> FlexTensor {
    contiguous(tensor.primitive().clone())
}

/// What a node of the graph put out, contiguous.
fn retrieve(checkpointer: &mut Checkpointer, node: NodeId) -> FlexTensor {
    contiguous(checkpointer.retrieve_node_output(node))
}

#[derive(Debug)]
struct Convolution;

impl Backward<Flex, 3> for Convolution {
    /// Where the input and the filters are kept, or how they are computed again.
    type State = ([NodeId; 2], Geometry);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [to_input, to_filters, to_bias] = ops.parents;
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let (operands, geometry) = ops.state;
        let [input, filters] = operands.map(|node| retrieve(checkpointer, node));
        if let Some(node) = to_bias {
            let sums = bias_gradient(&geometry, values(&gradient));
            grads.register::<Flex>(node.id, tensor(sums, &[geometry.outputs]));
        }
        if let Some(node) = to_filters {
            let sums = filters_gradient(&geometry, values(&input), values(&gradient));
            grads.register::<Flex>(node.id, tensor(sums, &filters.shape()));
        }
        if let Some(node) = to_input {
            let sums = input_gradient(&geometry, values(&filters), values(&gradient));
            grads.register::<Flex>(node.id, tensor(sums, &input.shape()));
        }
        release(gradient);
        release(input);
    }
}

#[derive(Debug)]
struct BatchNorm;

/// Computes a layer's output once more, where it was not kept.
#[derive(Debug)]
struct Renormalize {
    operands: [NodeId; 3],
    rule: NormRule,
}

impl RetroForward for Renormalize {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let [input, gamma, beta] = self.operands.map(|node| states.get_state(&node));
        let [result, ..] = Normalized::new(input, gamma, beta, self.rule).forward();
        states.save(output, result);
    }
}

impl Backward<Flex, 3> for BatchNorm {
    /// Where the input, gamma and beta are kept.
    type State = ([NodeId; 3], Moments, NormRule);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [to_input, to_gamma, to_beta] = ops.parents;
        let (mut gradient, source) = writable(grads.consume::<Flex>(&ops.node));
        let (operands, moments, rule) = ops.state;
        let [input, gamma, beta] = operands.map(|node| retrieve(checkpointer, node));
        let mut layer = Normalized::new(input, gamma, beta, rule);
        layer.moments = moments;
        let rule = (layer.affine(), &layer.moments, layer.rule.epsilon);
        let source = source.as_ref().map(values);
        let sums = normalize_gradient(
            layer.shape(),
            (values(&layer.input), source),
            rule,
            &mut gradient,
        );
        let shape = layer.input.shape();
        let parts = [
            (to_input, gradient, shape.to_vec()),
            (to_gamma, sums.gamma, layer.gamma.shape().to_vec()),
            (to_beta, sums.beta, layer.beta.shape().to_vec()),
        ];
        for (node, gradient, shape) in parts {
            if let Some(node) = node {
                grads.register::<Flex>(node.id, tensor(gradient, &shape));
            }
        }
        release(layer.input);
    }
}

#[derive(Debug)]
struct Relu;

impl Backward<Flex, 1> for Relu {
    type State = FlexTensor;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [to_input] = ops.parents;
        let (mut gradient, source) = writable(grads.consume::<Flex>(&ops.node));
        let output = ops.state;
        activate::relu_gradient(&mut gradient, source.as_ref().map(values), values(&output));
        if let Some(node) = to_input {
            grads.register::<Flex>(node.id, tensor(gradient, &output.shape()));
        }
        release(output);
    }
}

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn fused_conv2d(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let nodes = [input.node(), filters.node(), bias.node()];
        let [x, kernels, shift] = [&input, &filters, &bias].map(plain);
        let geometry = geometry(&x, &kernels, &options);
        let output = conv2d(&geometry, &x, &kernels, &shift);
        match Convolution.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let operands = [&input, &filters].map(|tensor| prepared.checkpoint(tensor));
                prepared.finish((operands, geometry), output)
            }
            OpsKind::UnTracked(prepared) => {
                drop(input);
                release(x);
                prepared.finish(output)
            }
        }
    }

    fn fused_batch_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        rule: NormRule,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [input.node(), gamma.node(), beta.node()];
        let operands = [&input, &gamma, &beta];
        let [x, scale, shift] = operands.map(plain);
        let mut layer = Normalized::new(x, scale, shift, rule);
        let [output, mean, variance] = layer.forward();
        let again = Renormalize {
            operands: nodes.each_ref().map(NodeGuard::id),
            rule,
        };
        let prepared = BatchNorm
            .prepare::<C>(nodes)
            .memory_bound()
            .retro_forward(again)
            .parents(operands)
            .stateful();
        let output = match prepared {
            OpsKind::Tracked(mut prepared) => {
                let kept = operands.map(|tensor| prepared.checkpoint(tensor));
                prepared.finish((kept, layer.moments, rule), output)
            }
            OpsKind::UnTracked(prepared) => {
                drop(input);
                release(layer.input);
                prepared.finish(output)
            }
        };
        (output, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn fused_relu(input: FloatTensor<Self>) -> FloatTensor<Self> {
        let (input, node) = input.into_parts();
        let output = Flex::fused_relu(input);
        match Relu.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(output.clone(), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

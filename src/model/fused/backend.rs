//! The fused operations as an extension of Burn's CPU backend, with and without gradients.

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

/// Settings of batch normalization.
#[derive(Debug, Clone, Copy)]
pub struct NormConfig {
    /// Added to the variance.
    pub epsilon: f64,
    /// Whether ReLU follows.
    pub relu: bool,
}

/// Fused operations on float32 tensors on the CPU.
#[backend_extension(Flex, Autodiff)]
pub trait FusedOps: Backend {
    /// Convolves `[N, C, H, W]` with `[K, C, h, w]` and adds the bias `[K]`, unless it is empty.
    /// Panics for a shape that [`Geometry`] does not support.
    fn fused_conv2d(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// Normalizes `[N, C, H, W]` by its own statistics; returns the output, the mean `[C]` and the
    /// biased variance `[C]`.
    fn fused_batch_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        config: NormConfig,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    /// Returns `max(0, input)`.
    fn fused_relu(input: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Returns the values of a contiguous tensor in row-major order.
fn values(tensor: &FlexTensor) -> &[f32] {
    tensor.as_slice().expect("operands are contiguous float32")
}

fn tensor(values: Vec<f32>, shape: &[usize]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.to_vec()))
}

/// Returns the tensor in contiguous layout.
fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.is_contiguous() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// Releases the memory for reuse, unless it is shared.
fn release(tensor: FlexTensor) {
    if let Some(values) = owned(tensor) {
        buffers::give(values);
    }
}

/// Returns the values, unless they are shared.
fn owned(tensor: FlexTensor) -> Option<Vec<f32>> {
    let whole = tensor.bytes().len() == tensor.shape().num_elements() * size_of::<f32>();
    let alone = whole && tensor.is_unique() && tensor.is_contiguous();
    alone
        .then(|| tensor.into_data().try_into_vec().ok())
        .flatten()
}

/// Returns writable memory with the size of the tensor. If the tensor is not shared, this is its
/// own memory with its values. Otherwise it is a buffer of unspecified values, together with the
/// tensor.
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
    Geometry::new(input, filters, options)
        .expect("the caller checked that the geometry is supported")
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
    let [height, width] = geometry.output_size;
    tensor(output, &[geometry.batch, geometry.outputs, height, width])
}

/// A batch normalization layer and its input.
#[derive(Debug)]
struct BatchNormLayer {
    input: FlexTensor,
    gamma: FlexTensor,
    beta: FlexTensor,
    moments: Moments,
    config: NormConfig,
}

impl BatchNormLayer {
    fn new(input: FlexTensor, gamma: FlexTensor, beta: FlexTensor, config: NormConfig) -> Self {
        Self {
            input: contiguous(input),
            gamma: contiguous(gamma),
            beta: contiguous(beta),
            moments: Moments::default(),
            config,
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
            relu: self.config.relu,
        }
    }

    fn forward(&mut self) -> [FlexTensor; 3] {
        let (input, epsilon) = (values(&self.input), self.config.epsilon);
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
        config: NormConfig,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let mut layer = BatchNormLayer::new(input, gamma, beta, config);
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

/// Returns the values of an autodiff tensor, contiguous.
fn plain(tensor: &FloatTensor<Autodiff<Flex>>) -> FlexTensor {
    contiguous(tensor.primitive().clone())
}

/// Returns the output of a node of the autodiff graph, contiguous.
fn retrieve(checkpointer: &mut Checkpointer, node: NodeId) -> FlexTensor {
    contiguous(checkpointer.retrieve_node_output(node))
}

#[derive(Debug)]
struct Convolution;

impl Backward<Flex, 3> for Convolution {
    /// Nodes of input and filters, stored or recomputed by the checkpointer.
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

/// Recomputes a layer's output for gradient checkpointing.
#[derive(Debug)]
struct Renormalize {
    operands: [NodeId; 3],
    config: NormConfig,
}

impl RetroForward for Renormalize {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let [input, gamma, beta] = self.operands.map(|node| states.get_state(&node));
        let [result, ..] = BatchNormLayer::new(input, gamma, beta, self.config).forward();
        states.save(output, result);
    }
}

impl Backward<Flex, 3> for BatchNorm {
    /// Nodes of input, gamma and beta, stored or recomputed by the checkpointer; statistics;
    /// settings.
    type State = ([NodeId; 3], Moments, NormConfig);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let [to_input, to_gamma, to_beta] = ops.parents;
        let (mut gradient, source) = writable(grads.consume::<Flex>(&ops.node));
        let (operands, moments, config) = ops.state;
        let [input, gamma, beta] = operands.map(|node| retrieve(checkpointer, node));
        let mut layer = BatchNormLayer::new(input, gamma, beta, config);
        layer.moments = moments;
        let affine = (layer.affine(), &layer.moments, layer.config.epsilon);
        let source = source.as_ref().map(values);
        let sums = normalize_gradient(
            layer.shape(),
            (values(&layer.input), source),
            affine,
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
        config: NormConfig,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [input.node(), gamma.node(), beta.node()];
        let operands = [&input, &gamma, &beta];
        let [x, scale, shift] = operands.map(plain);
        let mut layer = BatchNormLayer::new(x, scale, shift, config);
        let [output, mean, variance] = layer.forward();
        let again = Renormalize {
            operands: nodes.each_ref().map(NodeGuard::id),
            config,
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
                prepared.finish((kept, layer.moments, config), output)
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

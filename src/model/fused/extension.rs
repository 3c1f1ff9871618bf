//! The fused operations as an extension of Burn's backends, with and without gradients.
#![cfg_attr(
    feature = "torch",
    allow(
        deprecated,
        reason = "Burn marks its backend on libtorch as deprecated"
    )
)]

use std::any::TypeId;
use std::fmt::Debug;
use std::marker::PhantomData;

#[cfg(any(feature = "cuda", feature = "wgpu"))]
use burn::backend::Cube;
#[cfg(feature = "torch")]
use burn::backend::LibTorch;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::{CheckpointStrategy, NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, DispatchDevice, Flex, backend_extension};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device};

use super::kernels::{FusedKernels, FusedOperation, NormConfig, NormOperands};

/// Fused operations on float tensors. Call them only where [`supports`] returns true.
#[backend_extension(
    Flex,
    Cube: cfg(any(feature = "cuda", feature = "wgpu")),
    LibTorch: cfg(feature = "torch"),
    Autodiff
)]
pub trait FusedOps: Backend {
    /// Convolves `[N, C, H, W]` with `[K, C/groups, h, w]`.
    fn fused_conv2d(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// Like [`fused_conv2d`](FusedOps::fused_conv2d), and adds the bias `[K]`.
    fn fused_conv2d_bias(
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

/// Returns whether the backend of the device has kernels for the operation.
pub(super) fn supports(device: Device, dtype: DType, operation: FusedOperation<'_>) -> bool {
    match device.without_autodiff().as_dispatch() {
        DispatchDevice::Flex(_) => Flex::supports(dtype, operation),
        #[cfg(any(feature = "cuda", feature = "wgpu"))]
        DispatchDevice::Cube(_) => Cube::supports(dtype, operation),
        #[cfg(feature = "torch")]
        DispatchDevice::LibTorch(_) => LibTorch::supports(dtype, operation),
        #[allow(
            unreachable_patterns,
            reason = "the features select which backends exist"
        )]
        _ => false,
    }
}

impl<B: FusedKernels> FusedOps for B {
    fn fused_conv2d(
        input: FloatTensor<B>,
        filters: FloatTensor<B>,
        options: ConvOptions<2>,
    ) -> FloatTensor<B> {
        B::convolve(input, filters, None, &options)
    }

    fn fused_conv2d_bias(
        input: FloatTensor<B>,
        filters: FloatTensor<B>,
        bias: FloatTensor<B>,
        options: ConvOptions<2>,
    ) -> FloatTensor<B> {
        B::convolve(input, filters, Some(bias), &options)
    }

    fn fused_batch_norm(
        input: FloatTensor<B>,
        gamma: FloatTensor<B>,
        beta: FloatTensor<B>,
        config: NormConfig,
    ) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
        let operands = NormOperands { input, gamma, beta };
        let results = B::normalize(operands, config, false);
        (results.output, results.mean, results.variance)
    }

    fn fused_relu(input: FloatTensor<B>) -> FloatTensor<B> {
        B::rectify(input)
    }
}

/// Returns for each parent of an operation whether its gradient is required.
fn wanted<S, const N: usize, const M: usize>(ops: &Ops<S, N>) -> [bool; M] {
    std::array::from_fn(|index| ops.parents.get(index).is_some_and(Option::is_some))
}

/// Adds the gradients of an operation's parents to those of the graph.
fn register<B: Backend, S, const N: usize>(
    grads: &mut Gradients,
    ops: &Ops<S, N>,
    found: impl IntoIterator<Item = Option<FloatTensor<B>>>,
) {
    for (node, gradient) in ops.parents.iter().zip(found) {
        if let (Some(node), Some(gradient)) = (node, gradient) {
            grads.register::<B>(node.id, gradient);
        }
    }
}

/// The gradient of a convolution without (2 parents) or with bias (3 parents).
#[derive(Debug)]
struct Convolution;

/// Nodes of input and filters, stored or recomputed by the checkpointer, and settings.
type ConvState = ([NodeId; 2], ConvOptions<2>);

fn convolution_backward<B: FusedKernels, const N: usize>(
    ops: &Ops<ConvState, N>,
    grads: &mut Gradients,
    checkpointer: &mut Checkpointer,
) {
    let gradient = grads.consume::<B>(&ops.node);
    let (nodes, options) = &ops.state;
    let operands = nodes.map(|node| checkpointer.retrieve_node_output(node));
    let found = B::convolve_gradients(gradient, operands, options, wanted(ops));
    register::<B, _, N>(grads, ops, found);
}

impl<B: FusedKernels> Backward<B, 2> for Convolution {
    type State = ConvState;

    fn backward(
        self,
        ops: Ops<ConvState, 2>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        convolution_backward::<B, 2>(&ops, grads, checkpointer);
    }
}

impl<B: FusedKernels> Backward<B, 3> for Convolution {
    type State = ConvState;

    fn backward(
        self,
        ops: Ops<ConvState, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        convolution_backward::<B, 3>(&ops, grads, checkpointer);
    }
}

/// Convolves with gradients. `nodes` are those of the operands.
fn convolve<B: FusedKernels, C: CheckpointStrategy, const N: usize>(
    nodes: [NodeGuard; N],
    operands: [FloatTensor<Autodiff<B, C>>; 2],
    bias: Option<FloatTensor<B>>,
    options: ConvOptions<2>,
) -> FloatTensor<Autodiff<B, C>>
where
    Convolution: Backward<B, N, State = ConvState>,
{
    match Convolution.prepare::<C>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(mut prepared) => {
            let kept = operands
                .each_ref()
                .map(|tensor| prepared.checkpoint(tensor));
            let [input, filters] = operands.each_ref().map(|tensor| tensor.primitive().clone());
            let output = B::convolve(input, filters, bias, &options);
            prepared.finish((kept, options), output)
        }
        OpsKind::UnTracked(prepared) => {
            let [input, filters] = operands.map(|tensor| tensor.into_parts().0);
            prepared.finish(B::convolve(input, filters, bias, &options))
        }
    }
}

#[derive(Debug)]
struct BatchNorm;

/// Recomputes a layer's output for gradient checkpointing.
#[derive(Debug)]
struct Renormalize<B> {
    operands: [NodeId; 3],
    config: NormConfig,
    backend: PhantomData<B>,
}

impl<B: FusedKernels> RetroForward for Renormalize<B> {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let [input, gamma, beta] = self.operands.map(|node| states.get_state(&node));
        let operands = NormOperands::<B> { input, gamma, beta };
        let results = B::normalize(operands, self.config, false);
        states.save(output, results.output);
    }
}

impl<B: FusedKernels> Backward<B, 3> for BatchNorm {
    /// Nodes of input, gamma and beta, stored or recomputed by the checkpointer; the backend's
    /// state; settings.
    type State = ([NodeId; 3], B::NormState, NormConfig);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let (nodes, state, config) = &ops.state;
        let [input, gamma, beta] = nodes.map(|node| checkpointer.retrieve_node_output(node));
        let operands = NormOperands { input, gamma, beta };
        let state = (state.clone(), *config);
        let found = B::normalize_gradients(gradient, operands, state, wanted(&ops));
        register::<B, _, 3>(grads, &ops, found);
    }
}

#[derive(Debug)]
struct Relu;

impl<B: FusedKernels> Backward<B, 1> for Relu {
    /// The output.
    type State = FloatTensor<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        let [node] = ops.parents;
        let gradient = B::rectify_gradient(gradient, ops.state);
        if let Some(node) = node {
            grads.register::<B>(node.id, gradient);
        }
    }
}

impl<B: FusedKernels, C: CheckpointStrategy> FusedOps for Autodiff<B, C> {
    fn fused_conv2d(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let nodes = [input.node(), filters.node()];
        convolve::<B, C, 2>(nodes, [input, filters], None, options)
    }

    fn fused_conv2d_bias(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let (bias, bias_node) = bias.into_parts();
        let nodes = [input.node(), filters.node(), bias_node];
        convolve::<B, C, 3>(nodes, [input, filters], Some(bias), options)
    }

    fn fused_batch_norm(
        input: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        config: NormConfig,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        let nodes = [input.node(), gamma.node(), beta.node()];
        let again = Renormalize {
            operands: nodes.each_ref().map(NodeGuard::id),
            config,
            backend: PhantomData::<B>,
        };
        let prepared = BatchNorm
            .prepare::<C>(nodes)
            .memory_bound()
            .retro_forward(again)
            .parents([&input, &gamma, &beta])
            .stateful();
        let operands =
            |[input, gamma, beta]: [FloatTensor<B>; 3]| NormOperands { input, gamma, beta };
        let (output, mean, variance) = match prepared {
            OpsKind::Tracked(mut prepared) => {
                let tensors = [&input, &gamma, &beta];
                let kept = tensors.map(|tensor| prepared.checkpoint(tensor));
                let operands = operands(tensors.map(|tensor| tensor.primitive().clone()));
                let may_keep = TypeId::of::<C>() == TypeId::of::<NoCheckpointing>();
                let results = B::normalize(operands, config, may_keep);
                let output = prepared.finish((kept, results.state, config), results.output);
                (output, results.mean, results.variance)
            }
            OpsKind::UnTracked(prepared) => {
                let operands = operands([input, gamma, beta].map(|tensor| tensor.into_parts().0));
                let results = B::normalize(operands, config, false);
                let output = prepared.finish(results.output);
                (output, results.mean, results.variance)
            }
        };
        (output, Self::from_inner(mean), Self::from_inner(variance))
    }

    fn fused_relu(input: FloatTensor<Self>) -> FloatTensor<Self> {
        let (input, node) = input.into_parts();
        let output = B::rectify(input);
        match Relu.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(output.clone(), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    }
}

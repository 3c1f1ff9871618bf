//! What a backend implements for the fused operations.

use std::fmt::Debug;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn::tensor::ops::ConvOptions;

/// A fused operation and the shapes of its operands.
#[derive(Debug, Clone, Copy)]
pub(super) enum FusedOperation<'a> {
    /// Convolution of `input` `[N, C, H, W]` with `filters` `[K, C/groups, h, w]`.
    Conv2d {
        input: [usize; 4],
        filters: [usize; 4],
        options: &'a ConvOptions<2>,
    },
    /// Batch normalization of `[N, C, H, W]`.
    BatchNorm([usize; 4]),
    Relu,
}

/// Settings of batch normalization.
#[derive(Debug, Clone, Copy)]
pub struct NormConfig {
    /// Added to the variance.
    pub epsilon: f64,
    /// Whether ReLU follows.
    pub relu: bool,
}

/// Input `[N, C, H, W]` and parameters `[C]` of batch normalization.
#[derive(Debug)]
pub(super) struct NormOperands<B: Backend> {
    pub input: FloatTensor<B>,
    pub gamma: FloatTensor<B>,
    pub beta: FloatTensor<B>,
}

/// Results of batch normalization by the statistics of the batch.
#[derive(Debug)]
pub(super) struct NormResults<B: FusedKernels> {
    pub output: FloatTensor<B>,
    /// Mean of each channel.
    pub mean: FloatTensor<B>,
    /// Biased variance of each channel.
    pub variance: FloatTensor<B>,
    /// What the gradient requires in addition to the operands.
    pub state: B::NormState,
}

/// Fused operations without gradients, and the gradients as operations of their own.
///
/// `extension` connects them to Burn's automatic differentiation. A gradient receives the output's
/// gradient first. Where an array of operands' gradients is returned, `wanted` has the same order,
/// and the others are `None`.
pub(super) trait FusedKernels: Backend {
    /// What [`normalize_gradients`](Self::normalize_gradients) requires in addition to the
    /// operands.
    type NormState: Clone + Debug + Send + 'static;

    /// Returns whether the kernels support the operation on tensors of type `dtype`. For others,
    /// Burn's operations run.
    fn supports(dtype: DType, operation: FusedOperation<'_>) -> bool;

    /// Convolves and adds the bias `[K]`.
    fn convolve(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: &ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// Returns the gradients of input, filters and bias.
    fn convolve_gradients(
        gradient: FloatTensor<Self>,
        operands: [FloatTensor<Self>; 2],
        options: &ConvOptions<2>,
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3];

    /// Normalizes by the statistics of the batch. Unless `may_keep`, the state must not hold a
    /// tensor of the size of the output, since gradient checkpointing is meant to save memory.
    fn normalize(
        operands: NormOperands<Self>,
        config: NormConfig,
        may_keep: bool,
    ) -> NormResults<Self>;

    /// Returns the gradients of input, gamma and beta.
    fn normalize_gradients(
        gradient: FloatTensor<Self>,
        operands: NormOperands<Self>,
        state: (Self::NormState, NormConfig),
        wanted: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3];

    /// Returns `max(0, input)`.
    fn rectify(input: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Returns the gradient of the input of [`rectify`](Self::rectify), given its output.
    fn rectify_gradient(
        gradient: FloatTensor<Self>,
        output: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

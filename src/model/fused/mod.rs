//! Fused convolution, batch normalization and ReLU for training.
//!
//! Each backend has its kernels in a folder of its own and implements `kernels::FusedKernels`.
//! `extension` connects them to Burn's automatic differentiation, once for all backends. Burn's
//! operations run on any other device, for unsupported shapes, and when fusion is disabled.

mod cpu;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod cubecl;
mod extension;
mod kernels;
#[cfg(test)]
mod tests;
#[cfg(feature = "torch")]
pub(crate) mod torch;

use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::Dispatch;
use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::module::batch_norm_train;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, FloatDType, Tensor, activation, module};

#[cfg(any(feature = "cuda", feature = "wgpu"))]
pub use cubecl::autotune;
use extension::FusedOps as _;
use kernels::{FusedOperation, NormConfig};

static ENABLED: AtomicBool = AtomicBool::new(true);

/// Enables or disables fused operations in this process, for comparisons with Burn's operations.
pub fn set_fused(enabled: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
}

/// Returns whether the fused operations are enabled and support the operation on the tensor.
fn can_fuse<const D: usize>(tensor: &Tensor<D>, operation: FusedOperation<'_>) -> bool {
    ENABLED.load(Ordering::Relaxed)
        && extension::supports(tensor.device(), tensor.dtype(), operation)
}

/// Output and statistics of batch normalization in training mode.
pub(super) struct BatchNormOutput {
    pub output: Tensor<4>,
    /// Mean of each channel.
    pub mean: Tensor<1>,
    /// Biased variance of each channel.
    pub variance: Tensor<1>,
}

/// Applies `layer` to `[N, C, H, W]`.
#[must_use]
pub fn conv2d(layer: &Conv2d, input: Tensor<4>) -> Tensor<4> {
    let padding = match layer.padding {
        PaddingConfig2d::Valid => [(0, 0); 2],
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
        PaddingConfig2d::Same => return layer.forward(input),
    };
    let options =
        ConvOptions::new_with_padding(layer.stride, padding, layer.dilation, layer.groups);
    let bias = layer.bias.as_ref().map(Param::val);
    convolution(input, layer.weight.val(), bias, options)
}

/// Fused [`module::conv2d`].
fn convolution(
    input: Tensor<4>,
    filters: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions<2>,
) -> Tensor<4> {
    let operation = FusedOperation::Conv2d {
        input: input.dims(),
        filters: filters.dims(),
        options: &options,
    };
    if !(can_fuse(&input, operation) && can_fuse(&filters, operation)) {
        return module::conv2d(input, filters, bias, options);
    }
    let (input, filters) = (input.into_dispatch(), filters.into_dispatch());
    Tensor::from_dispatch(match bias {
        Some(bias) => Dispatch::fused_conv2d_bias(input, filters, bias.into_dispatch(), options),
        None => Dispatch::fused_conv2d(input, filters, options),
    })
}

/// Fused [`batch_norm_train`], followed by ReLU if `relu`.
pub(super) fn batch_norm(
    input: Tensor<4>,
    (gamma, beta): (Tensor<1>, Tensor<1>),
    epsilon: f64,
    relu: bool,
) -> BatchNormOutput {
    if !can_fuse(&input, FusedOperation::BatchNorm(input.dims())) {
        let result = batch_norm_train(input, gamma, beta, epsilon);
        let output = if relu {
            activation::relu(result.output)
        } else {
            result.output
        };
        return BatchNormOutput {
            output,
            mean: result.mean,
            variance: result.variance,
        };
    }
    let (output, mean, variance) = Dispatch::fused_batch_norm(
        input.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        NormConfig { epsilon, relu },
    );
    BatchNormOutput {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
    }
}

/// Returns the tensor in float32; unchanged if it already is.
pub(super) fn to_float32<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    if tensor.dtype() == DType::F32 {
        return tensor;
    }
    tensor.cast(FloatDType::F32)
}

/// Fused [`activation::relu`].
#[must_use]
pub(crate) fn relu<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    if !can_fuse(&input, FusedOperation::Relu) {
        return activation::relu(input);
    }
    Tensor::from_dispatch(Dispatch::fused_relu(input.into_dispatch()))
}

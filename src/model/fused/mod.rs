//! Convolution, batch normalisation and ReLU for training on the CPU.
//!
//! Burn's own operations on its CPU backend `flex` unfold an input whole, change layouts and go
//! over memory once for each elementary operation. These do the same arithmetic in pieces that fit
//! the cache, in matrix products by the same `gemm` crate. On any other device, for shapes that
//! they do not know, and when they are switched off, Burn's operations run.
//!
//! Results do not depend on the number of threads or on chance.

mod activate;
mod backend;
mod buffers;
mod convolve;
mod gemm;
mod geometry;
mod im2col;
mod normalize;
mod sums;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};

use burn::backend::Dispatch;
use burn::module::Param;
use burn::nn::PaddingConfig2d;
use burn::nn::conv::Conv2d;
use burn::tensor::module::batch_norm_train;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Device, Tensor, activation, module};

use backend::{FusedOps as _, NormRule};
use geometry::Geometry;

static ENABLED: AtomicBool = AtomicBool::new(true);

/// Whether operations may be fused in this process, from now on: for comparisons with Burn's own.
pub fn set_fused(enabled: bool) {
    ENABLED.store(enabled, Ordering::Relaxed);
}

/// Whether the operations here can work on the tensor.
fn can_fuse<const D: usize>(tensor: &Tensor<D>) -> bool {
    ENABLED.load(Ordering::Relaxed)
        && tensor.dtype() == DType::F32
        && tensor.device().without_autodiff() == Device::flex()
}

/// What a normalising layer makes of a batch.
pub(super) struct Normalized {
    pub output: Tensor<4>,
    /// Mean of each channel.
    pub mean: Tensor<1>,
    /// Biased variance of each channel.
    pub variance: Tensor<1>,
}

/// What `layer` makes of `[N, C, H, W]`.
#[must_use]
pub(crate) fn conv2d(layer: &Conv2d, input: Tensor<4>) -> Tensor<4> {
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

/// [`module::conv2d`].
fn convolution(
    input: Tensor<4>,
    filters: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: ConvOptions<2>,
) -> Tensor<4> {
    let plain = Geometry::new(input.dims(), filters.dims(), &options).is_some();
    if !(plain && can_fuse(&input) && can_fuse(&filters)) {
        return module::conv2d(input, filters, bias, options);
    }
    let bias = bias.unwrap_or_else(|| Tensor::zeros([0], &Device::flex()));
    Tensor::from_dispatch(Dispatch::fused_conv2d(
        input.into_dispatch(),
        filters.into_dispatch(),
        bias.into_dispatch(),
        options,
    ))
}

/// [`batch_norm_train`], with ReLU after it if `relu`.
pub(super) fn batch_norm(
    input: Tensor<4>,
    (gamma, beta): (Tensor<1>, Tensor<1>),
    epsilon: f64,
    relu: bool,
) -> Normalized {
    if !can_fuse(&input) || input.shape().num_elements() == 0 {
        let result = batch_norm_train(input, gamma, beta, epsilon);
        let output = if relu {
            activation::relu(result.output)
        } else {
            result.output
        };
        return Normalized {
            output,
            mean: result.mean,
            variance: result.variance,
        };
    }
    let (output, mean, variance) = Dispatch::fused_batch_norm(
        input.into_dispatch(),
        gamma.into_dispatch(),
        beta.into_dispatch(),
        NormRule { epsilon, relu },
    );
    Normalized {
        output: Tensor::from_dispatch(output),
        mean: Tensor::from_dispatch(mean),
        variance: Tensor::from_dispatch(variance),
    }
}

/// [`activation::relu`].
#[must_use]
pub(crate) fn relu<const D: usize>(input: Tensor<D>) -> Tensor<D> {
    if !can_fuse(&input) {
        return activation::relu(input);
    }
    Tensor::from_dispatch(Dispatch::fused_relu(input.into_dispatch()))
}

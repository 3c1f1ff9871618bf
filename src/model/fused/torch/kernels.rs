//! The fused operations by libtorch's operators.

use burn::backend::libtorch::TchTensor;
use burn::backend::{LibTorch, TensorMetadata};
use burn::tensor::DType;
use burn::tensor::ops::ConvOptions;
use tch::{Kind, Tensor};

use super::library::computes_in_bf16;
use super::shim::{self, ConvWindow, SavedNorm};
use crate::model::fused::kernels::{
    FusedKernels, FusedOperation, NormConfig, NormOperands, NormResults,
};

/// Padding before and after the height and the width.
type Sides = [(usize, usize); 2];

/// Returns the padding that both sides have, and what one side has in addition.
fn split_padding(padding: Sides) -> ([i64; 2], Sides) {
    let both = padding.map(|(before, after)| before.min(after));
    let rest = [0, 1].map(|axis| {
        let (before, after) = padding[axis];
        (before - both[axis], after - both[axis])
    });
    (both.map(|size| size as i64), rest)
}

fn is_zero(sides: Sides) -> bool {
    sides == [(0, 0); 2]
}

/// Adds rows and columns of zeros to `[N, C, H, W]`.
fn pad(input: &Tensor, sides: Sides) -> Tensor {
    if is_zero(sides) {
        return input.shallow_clone();
    }
    let [(top, bottom), (left, right)] = sides;
    input.constant_pad_nd([left, right, top, bottom].map(|size| size as i64))
}

/// Removes what [`pad`] added; `size` is the shape before.
fn crop(input: Tensor, sides: Sides, size: &[i64]) -> Tensor {
    if is_zero(sides) {
        return input;
    }
    let [(top, _), (left, _)] = sides.map(|(before, after)| (before as i64, after as i64));
    let rows = input.narrow(2, top, size[2]);
    rows.narrow(3, left, size[3]).contiguous()
}

fn window(options: &ConvOptions<2>) -> (ConvWindow, Sides) {
    let (padding, rest) = split_padding(options.padding);
    let window = ConvWindow {
        stride: options.stride.map(|size| size as i64),
        padding,
        dilation: options.dilation.map(|size| size as i64),
        groups: options.groups as i64,
    };
    (window, rest)
}

/// Returns the tensor in the type in which convolutions compute.
fn cast(tensor: &Tensor) -> Tensor {
    if computes_in_bf16() && tensor.kind() == Kind::Float {
        tensor.to_kind(Kind::BFloat16)
    } else {
        tensor.shallow_clone()
    }
}

/// Like [`cast`], to a given type.
fn cast_to(tensor: Tensor, kind: Kind) -> Tensor {
    if tensor.kind() == kind {
        tensor
    } else {
        tensor.to_kind(kind)
    }
}

/// State of batch normalization for its gradient.
#[derive(Debug, Clone)]
pub(in crate::model::fused) struct TorchNormState {
    implementation: i64,
    saved: [TchTensor; 3],
    /// The output after ReLU, unless it must be computed again.
    output: Option<TchTensor>,
}

/// Normalizes and applies ReLU if required.
fn normalize(operands: &NormOperands<LibTorch>, config: NormConfig) -> ([Tensor; 3], SavedNorm) {
    let tensors = [&operands.input, &operands.gamma, &operands.beta];
    let tensors = tensors.map(|operand| &operand.tensor);
    let ([mut output, mean, variance], saved) = shim::batch_norm(tensors, config.epsilon);
    if config.relu {
        output = output.relu_();
    }
    ([output, mean, variance], saved)
}

impl FusedKernels for LibTorch {
    type NormState = TorchNormState;

    fn supports(dtype: DType, operation: FusedOperation<'_>) -> bool {
        let is_not_empty = match operation {
            FusedOperation::Conv2d { input, filters, .. } => {
                !input.contains(&0) && !filters.contains(&0)
            }
            FusedOperation::BatchNorm(input) => !input.contains(&0),
            FusedOperation::Relu => true,
        };
        matches!(dtype, DType::F32 | DType::BF16) && is_not_empty
    }

    fn convolve(
        input: TchTensor,
        filters: TchTensor,
        bias: Option<TchTensor>,
        options: &ConvOptions<2>,
    ) -> TchTensor {
        let (window, sides) = window(options);
        let input = pad(&cast(&input.tensor), sides);
        let bias = bias.map(|bias| cast(&bias.tensor));
        TchTensor::new(input.conv2d(
            &cast(&filters.tensor),
            bias.as_ref(),
            window.stride,
            window.padding,
            window.dilation,
            window.groups,
        ))
    }

    fn convolve_gradients(
        gradient: TchTensor,
        [input, filters]: [TchTensor; 2],
        options: &ConvOptions<2>,
        wanted: [bool; 3],
    ) -> [Option<TchTensor>; 3] {
        let (window, sides) = window(options);
        let kinds = [input.tensor.kind(), filters.tensor.kind(), Kind::Float];
        let (size, filters) = (input.tensor.size(), cast(&filters.tensor));
        let input = pad(&cast(&input.tensor), sides);
        let gradient = cast_to(gradient.tensor, filters.kind());
        let operands = [&input, &filters];
        let [to_input, to_filters, to_bias] =
            shim::convolution_backward(&gradient, operands, &window, wanted);
        let found = [
            to_input.map(|found| crop(found, sides, &size)),
            to_filters,
            to_bias,
        ];
        let mut kinds = kinds.into_iter();
        found.map(|found| {
            let kind = kinds.next().unwrap_or(Kind::Float);
            found.map(|found| TchTensor::new(cast_to(found, kind)))
        })
    }

    fn normalize(
        operands: NormOperands<Self>,
        config: NormConfig,
        may_keep: bool,
    ) -> NormResults<Self> {
        let [count, _, height, width] = operands.input.shape().dims();
        let ([output, mean, variance], saved) = normalize(&operands, config);
        let output = TchTensor::new(output);
        // libtorch returns the unbiased variance; that of a single value is infinite or undefined.
        let values = (count * height * width) as f64;
        let variance = if values > 1.0 {
            variance * ((values - 1.0) / values)
        } else {
            variance.zeros_like()
        };
        NormResults {
            mean: TchTensor::new(mean),
            variance: TchTensor::new(variance),
            state: TorchNormState {
                implementation: saved.implementation,
                saved: saved.tensors.map(TchTensor::new),
                output: (config.relu && may_keep).then(|| output.clone()),
            },
            output,
        }
    }

    fn normalize_gradients(
        gradient: TchTensor,
        operands: NormOperands<Self>,
        (state, config): (TorchNormState, NormConfig),
        wanted: [bool; 3],
    ) -> [Option<TchTensor>; 3] {
        let gradient = if config.relu {
            let output = match state.output {
                Some(output) => output.tensor,
                None => normalize(&operands, config)
                    .0
                    .into_iter()
                    .next()
                    .unwrap_or_default(),
            };
            let gradient = cast_to(gradient.tensor, output.kind());
            output.threshold_backward(&gradient, 0.0)
        } else {
            cast_to(gradient.tensor, operands.input.tensor.kind())
        };
        let saved = state.saved.each_ref().map(|saved| &saved.tensor);
        shim::batch_norm_backward(
            &gradient,
            [&operands.input.tensor, &operands.gamma.tensor],
            (state.implementation, saved),
            config.epsilon,
            wanted,
        )
        .map(|found| found.map(TchTensor::new))
    }

    fn rectify(input: TchTensor) -> TchTensor {
        input.unary_ops(|mut input| input.relu_(), Tensor::relu)
    }

    fn rectify_gradient(gradient: TchTensor, output: TchTensor) -> TchTensor {
        let gradient = cast_to(gradient.tensor, output.tensor.kind());
        TchTensor::new(output.tensor.threshold_backward(&gradient, 0.0))
    }
}

//! Implements the fused operations for Burn's GPU backend.

use burn::backend::ops::{ActivationOps, FloatTensorOps, ModuleOps};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Cube, TensorMetadata, backend_extension};
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;

use super::convolve::{convolve, device_traits, filters_gradient, input_gradient};
use super::rule::ConvShape;
use super::tuning::autotune;
use crate::model::fused::kernels::{
    FusedKernels, FusedOperation, NormConfig, NormOperands, NormResults,
};

/// Convolution without groups, as operations that Burn's kernel fusion executes in order.
#[backend_extension(Cube, Fusion)]
pub trait CubeConvolution: Backend {
    /// Convolves `[N, C, H, W]` with `[K, C, h, w]`.
    #[fusion(dtype = input, shape = output_shape(input, filters, options))]
    fn cube_convolve(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// Returns the gradient of an input of shape `shape`.
    #[fusion(dtype = gradient, shape = shape.clone())]
    fn cube_input_gradient(
        gradient: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        shape: Shape,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;

    /// Returns the gradient of filters of shape `shape`.
    #[fusion(dtype = gradient, shape = shape.clone())]
    fn cube_filters_gradient(
        gradient: FloatTensor<Self>,
        input: FloatTensor<Self>,
        shape: Shape,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self>;
}

/// Returns the shape of a convolution's output.
fn output_shape(input: &Shape, filters: &Shape, options: &ConvOptions<2>) -> Shape {
    let shape = ConvShape::new(input.dims(), filters.dims(), options)
        .expect("the caller checked that the shape is supported");
    let [height, width] = shape.output_size;
    Shape::new([shape.batch, shape.outputs, height, width])
}

impl CubeConvolution for CubeBackend {
    fn cube_convolve(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let device = device_traits(&input);
        convolve(input, filters, &options, &device)
    }

    fn cube_input_gradient(
        gradient: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        shape: Shape,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let device = device_traits(&gradient);
        input_gradient(gradient, filters, &shape, &options, &device)
    }

    fn cube_filters_gradient(
        gradient: FloatTensor<Self>,
        input: FloatTensor<Self>,
        shape: Shape,
        options: ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let device = device_traits(&gradient);
        filters_gradient(gradient, input, &shape, &options, &device)
    }
}

/// Sums `[N, C, H, W]` to `[C]`.
fn sum_of_channels(tensor: FloatTensor<Cube>) -> FloatTensor<Cube> {
    let channels = tensor.shape()[1];
    let sum = [0, 2, 3].into_iter().fold(tensor, Cube::float_sum_dim);
    Cube::float_reshape(sum, Shape::new([channels]))
}

impl FusedKernels for Cube {
    /// Mean and variance of each channel, and the output if it is kept for the gradient of ReLU.
    type NormState = (
        FloatTensor<Self>,
        FloatTensor<Self>,
        Option<FloatTensor<Self>>,
    );

    fn supports(dtype: DType, operation: FusedOperation<'_>) -> bool {
        let shape_is_supported = match operation {
            FusedOperation::Conv2d {
                input,
                filters,
                options,
            } => {
                let tuned = matches!(autotune(), Ok(true));
                !tuned && ConvShape::new(input, filters, options).is_some()
            }
            FusedOperation::BatchNorm(shape) => shape.iter().all(|size| *size > 0),
            FusedOperation::Relu => true,
        };
        dtype == DType::F32 && shape_is_supported
    }

    fn convolve(
        input: FloatTensor<Self>,
        filters: FloatTensor<Self>,
        bias: Option<FloatTensor<Self>>,
        options: &ConvOptions<2>,
    ) -> FloatTensor<Self> {
        let output = Self::cube_convolve(input, filters, options.clone());
        let Some(bias) = bias else { return output };
        let channels = output.shape()[1];
        let bias = Self::float_reshape(bias, Shape::new([1, channels, 1, 1]));
        Self::float_add(output, bias)
    }

    fn convolve_gradients(
        gradient: FloatTensor<Self>,
        [input, filters]: [FloatTensor<Self>; 2],
        options: &ConvOptions<2>,
        [to_input, to_filters, to_bias]: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let (input_shape, filters_shape) = (input.shape(), filters.shape());
        let of_input = to_input.then(|| {
            Self::cube_input_gradient(gradient.clone(), filters, input_shape, options.clone())
        });
        let of_filters = to_filters.then(|| {
            Self::cube_filters_gradient(gradient.clone(), input, filters_shape, options.clone())
        });
        [
            of_input,
            of_filters,
            to_bias.then(|| sum_of_channels(gradient)),
        ]
    }

    fn normalize(
        operands: NormOperands<Self>,
        config: NormConfig,
        may_keep: bool,
    ) -> NormResults<Self> {
        let NormOperands { input, gamma, beta } = operands;
        let result = Self::batch_norm_train(input, gamma, beta, config.epsilon);
        let output = if config.relu {
            Self::relu(result.output)
        } else {
            result.output
        };
        let kept = (config.relu && may_keep).then(|| output.clone());
        NormResults {
            output,
            mean: result.mean.clone(),
            variance: result.variance.clone(),
            state: (result.mean, result.variance, kept),
        }
    }

    fn normalize_gradients(
        gradient: FloatTensor<Self>,
        operands: NormOperands<Self>,
        state: (Self::NormState, NormConfig),
        [to_input, to_gamma, to_beta]: [bool; 3],
    ) -> [Option<FloatTensor<Self>>; 3] {
        let NormOperands { input, gamma, beta } = operands;
        let ((mean, variance, kept), NormConfig { epsilon, relu }) = state;
        let gradient = if relu {
            let output = kept.unwrap_or_else(|| {
                let (mean, variance) = (mean.clone(), variance.clone());
                Self::batch_norm(input.clone(), gamma.clone(), beta, mean, variance, epsilon)
            });
            Self::relu_backward(output, gradient)
        } else {
            gradient
        };
        let found =
            Self::batch_norm_train_backward(input, gamma, mean, variance, epsilon, gradient);
        [
            to_input.then_some(found.x_grad),
            to_gamma.then_some(found.gamma_grad),
            to_beta.then_some(found.beta_grad),
        ]
    }

    fn rectify(input: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::relu(input)
    }

    fn rectify_gradient(
        gradient: FloatTensor<Self>,
        output: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        Self::relu_backward(output, gradient)
    }
}

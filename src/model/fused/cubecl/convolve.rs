//! Convolution and its gradients as matrix products on a GPU.
//!
//! Tensors are `[samples, channels, height, width]`, with the channels next to each other in
//! memory. A tensor in another layout is copied first.

use std::ops::Range;

use burn::backend::TensorMetadata;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::ops::ConvOptions;
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::cubecl::ir::{ElemType, FloatKind};
use burn_cubecl::kernel::conv::{
    ConvStrategy, conv_data_backward, conv_forward, conv_weight_backward,
};
use burn_cubecl::kernel::matmul::{MatmulStrategy, matmul};
use burn_cubecl::kernel::{into_contiguous, slice};
use burn_cubecl::ops::{numeric, permute, permute_nchw_to_nhwc, permute_nhwc_to_nchw, reshape};
use burn_cubecl::tensor::CubeTensor;

use super::rule::{ConvMethod, ConvPass, ConvShape, DeviceTraits, parts};
use super::unfold::{fold, unfold};

/// Number of processors of a device that does not report it.
const PROCESSORS: usize = 64;

/// Returns what the rule considers of a tensor's device.
pub(super) fn device_traits(tensor: &CubeTensor) -> DeviceTraits {
    let properties = tensor.client.properties();
    let float = |kind: &ElemType| matches!(kind, ElemType::Float(FloatKind::TF32 | FloatKind::F32));
    let mut instructions = properties.features.matmul.cmma.iter();
    let processors = properties.hardware.num_streaming_multiprocessors;
    DeviceTraits {
        matrix_instructions: instructions.any(|config| float(&config.a_type)),
        processors: processors.map_or(PROCESSORS, |count| count as usize),
        largest_buffer: properties.memory.max_page_size,
    }
}

fn conv_shape(input: &Shape, filters: &Shape, options: &ConvOptions<2>) -> ConvShape {
    ConvShape::new(input.dims(), filters.dims(), options)
        .expect("the caller checked that the shape is supported")
}

/// Multiplies two matrices, or two batches of matrices.
fn multiply(left: CubeTensor, right: CubeTensor) -> CubeTensor {
    matmul(left, right, None, MatmulStrategy::Cube, DType::F32)
        .expect("Burn multiplies float32 matrices of any size on each device")
}

/// Returns `[samples, height, width, channels]` as a matrix of positions and channels, without a
/// copy if the positions have equal distances in memory.
fn positions(tensor: CubeTensor) -> CubeTensor {
    let [samples, height, width, _] = tensor.shape().dims();
    let mut tensor = tensor;
    let strides = tensor.meta.strides();
    let rows_follow = strides[1] == width * strides[2] && strides[0] == height * strides[1];
    if strides[3] != 1 || !rows_follow {
        tensor = into_contiguous(tensor);
    }
    let distance = tensor.meta.strides()[2];
    for _ in 0..3 {
        tensor.meta.remove(0);
    }
    tensor.meta.insert(0, samples * height * width, distance);
    tensor
}

/// Replaces the rows of a matrix by dimensions, whose lengths multiply to their number.
fn with_rows_as(mut matrix: CubeTensor, lengths: &[usize]) -> CubeTensor {
    let (_, mut distance) = matrix.meta.remove(0);
    for length in lengths.iter().rev() {
        matrix.meta.insert(0, *length, distance);
        distance *= length;
    }
    matrix
}

/// Returns a matrix of positions and channels as `[samples, channels, height, width]`.
fn image(matrix: CubeTensor, samples: usize, [height, width]: [usize; 2]) -> CubeTensor {
    permute_nhwc_to_nchw(with_rows_as(matrix, &[samples, height, width]))
}

/// Returns the filters as a matrix of output channels and window values.
fn filters_matrix(filters: CubeTensor) -> CubeTensor {
    let filters = permute_nchw_to_nhwc(filters);
    let [outputs, down, right, inputs] = filters.shape().dims();
    reshape(filters, Shape::new([outputs, down * right * inputs]))
}

fn transposed(matrix: CubeTensor) -> CubeTensor {
    permute(matrix, &[1, 0])
}

/// Applies `compute` to the samples of each portion of `[samples, height, width, channels]` and
/// joins the results along their first axis.
fn by_portions(
    tensor: &CubeTensor,
    shape: &ConvShape,
    device: &DeviceTraits,
    compute: impl Fn(CubeTensor) -> CubeTensor,
) -> CubeTensor {
    let portions = shape.portions(device);
    let mut results: Vec<CubeTensor> = portions
        .iter()
        .map(|samples| compute(portion(tensor, samples.clone())))
        .collect();
    match results.len() {
        1 => results.remove(0),
        _ => CubeBackend::float_cat(results, 0),
    }
}

/// Returns some of the samples of `[samples, height, width, channels]`.
fn portion(tensor: &CubeTensor, samples: Range<usize>) -> CubeTensor {
    let [all, height, width, channels] = tensor.shape().dims();
    if samples.len() == all {
        return tensor.clone();
    }
    slice(tensor.clone(), &[samples, 0..height, 0..width, 0..channels])
}

/// Returns `[samples, channels, height, width]` as `[samples, height, width, channels]`, with the
/// channels next to each other.
fn channels_last(tensor: CubeTensor) -> CubeTensor {
    let tensor = permute_nchw_to_nhwc(tensor);
    if tensor.meta.strides()[3] == 1 {
        tensor
    } else {
        into_contiguous(tensor)
    }
}

/// Convolves without a bias.
pub(super) fn convolve(
    input: CubeTensor,
    filters: CubeTensor,
    options: &ConvOptions<2>,
    device: &DeviceTraits,
) -> CubeTensor {
    let shape = conv_shape(&input.shape(), &filters.shape(), options);
    let method = shape.method(ConvPass::Output, device);
    if method == ConvMethod::ImplicitGemm {
        let (input, filters) = (input.clone(), filters.clone());
        let strategy = ConvStrategy::ImplicitGemm;
        if let Ok(output) = conv_forward(input, filters, None, options.clone(), strategy) {
            return output;
        }
    }
    let filters = transposed(filters_matrix(filters));
    let input = channels_last(input);
    let product = if method == ConvMethod::Product {
        multiply(positions(input), filters)
    } else {
        by_portions(&input, &shape, device, |samples| {
            multiply(unfold(samples, &shape), filters.clone())
        })
    };
    image(product, shape.batch, shape.output_size)
}

/// Returns the gradient of an input of shape `input`.
pub(super) fn input_gradient(
    gradient: CubeTensor,
    filters: CubeTensor,
    input: &Shape,
    options: &ConvOptions<2>,
    device: &DeviceTraits,
) -> CubeTensor {
    let shape = conv_shape(input, &filters.shape(), options);
    let method = shape.method(ConvPass::InputGradient, device);
    if method == ConvMethod::ImplicitGemm {
        let (gradient, filters, input) = (gradient.clone(), filters.clone(), input.clone());
        let strategy = ConvStrategy::ImplicitGemm;
        if let Ok(result) = conv_data_backward(gradient, filters, input, options.clone(), strategy)
        {
            return result;
        }
    }
    let filters = filters_matrix(filters);
    let gradient = channels_last(gradient);
    if method == ConvMethod::Product {
        let product = multiply(positions(gradient), filters);
        return image(product, shape.batch, shape.input_size);
    }
    permute_nhwc_to_nchw(by_portions(&gradient, &shape, device, |samples| {
        let count = samples.shape()[0];
        fold(multiply(positions(samples), filters.clone()), count, &shape)
    }))
}

/// Returns the gradient of filters of shape `filters`.
pub(super) fn filters_gradient(
    gradient: CubeTensor,
    input: CubeTensor,
    filters: &Shape,
    options: &ConvOptions<2>,
    device: &DeviceTraits,
) -> CubeTensor {
    let shape = conv_shape(&input.shape(), filters, options);
    let method = shape.method(ConvPass::FiltersGradient, device);
    if method == ConvMethod::ImplicitGemm {
        let (gradient, input, filters) = (gradient.clone(), input.clone(), filters.clone());
        let strategy = ConvStrategy::ImplicitGemm;
        let result = conv_weight_backward(input, gradient, filters, options.clone(), strategy);
        if let Ok(result) = result {
            return result;
        }
    }
    let (input, gradient) = (channels_last(input), channels_last(gradient));
    let product = if method == ConvMethod::Product {
        sum_of_products(positions(gradient), positions(input), device)
    } else {
        let portions = shape.portions(device).into_iter();
        let products = portions.map(|samples| {
            let columns = unfold(portion(&input, samples.clone()), &shape);
            sum_of_products(positions(portion(&gradient, samples)), columns, device)
        });
        products
            .reduce(numeric::add)
            .expect("a supported shape has samples")
    };
    let [down, right] = shape.kernel;
    let dims = [shape.outputs, down, right, shape.inputs];
    permute_nhwc_to_nchw(reshape(product, Shape::new(dims)))
}

/// Returns the product of the transposed matrix `left` and `right`, which have many rows.
fn sum_of_products(left: CubeTensor, right: CubeTensor, device: &DeviceTraits) -> CubeTensor {
    let ([rows, height], [_, width]) = (left.shape().dims(), right.shape().dims());
    let parts = parts(rows, [height, width], device);
    if parts == 1 {
        return multiply(transposed(left), right);
    }
    let divided = |matrix| with_rows_as(matrix, &[parts, rows / parts]);
    let products = multiply(permute(divided(left), &[0, 2, 1]), divided(right));
    let sum = CubeBackend::float_sum_dim(products, 0);
    reshape(sum, Shape::new([height, width]))
}

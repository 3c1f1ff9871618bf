//! Kernels that copy the windows of a convolution into a matrix, and add them back.

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::ir::ElemType;
use cubecl::prelude::*;
use cubecl::std::FastDivmod;
use cubecl::std::tensor::layout::linear::LinearViewMut;

use super::rule::ConvShape;

/// Geometry of the windows, in the order height, width, and the number of channels.
#[derive(CubeLaunch, CubeType)]
struct Windows {
    stride_0: usize,
    stride_1: usize,
    dilation_0: usize,
    dilation_1: usize,
    pad_0: usize,
    pad_1: usize,
    kernel_0: usize,
    kernel_1: usize,
    output_0: usize,
    output_1: usize,
    channels: usize,
}

fn windows(shape: &ConvShape) -> WindowsLaunch {
    WindowsLaunch::new(
        shape.stride[0],
        shape.stride[1],
        shape.dilation[0],
        shape.dilation[1],
        shape.pad[0],
        shape.pad[1],
        shape.kernel[0],
        shape.kernel[1],
        shape.output_size[0],
        shape.output_size[1],
        shape.inputs,
    )
}

/// Copies `input` `[batch, height, width, channels]`. `columns` has the dimensions `dims`: samples,
/// output rows and columns, kernel rows and columns, channels.
#[cube(launch, address_type = "dynamic")]
fn unfold_kernel<E: Numeric, N: Size>(
    input: &Tensor<Vector<E, N>>,
    mut columns: LinearViewMut<'_, Vector<E, N>>,
    dims: Sequence<FastDivmod<usize>>,
    windows: Windows,
    #[define(E)] _dtype: ElemType,
) {
    if !columns.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let lanes = input.vector_size();
    let (rest, channel) = dims[5].div_mod(ABSOLUTE_POS * lanes);
    let (rest, tap_x) = dims[4].div_mod(rest);
    let (rest, tap_y) = dims[3].div_mod(rest);
    let (rest, out_x) = dims[2].div_mod(rest);
    let (sample, out_y) = dims[1].div_mod(rest);
    // Positions in the padded input.
    let y = out_y * windows.stride_0 + tap_y * windows.dilation_0;
    let x = out_x * windows.stride_1 + tap_x * windows.dilation_1;
    let mut value = Vector::new(E::from_int(0));
    if y >= windows.pad_0
        && x >= windows.pad_1
        && y - windows.pad_0 < input.shape(1)
        && x - windows.pad_1 < input.shape(2)
    {
        let offset = sample * input.stride(0)
            + (y - windows.pad_0) * input.stride(1)
            + (x - windows.pad_1) * input.stride(2)
            + channel * input.stride(3);
        value = input[offset / lanes];
    }
    columns.write(ABSOLUTE_POS, value);
}

/// Adds the values that [`unfold_kernel`] copied from the same position. `image` has the dimensions
/// `dims`: samples, height, width, channels.
#[cube(launch, address_type = "dynamic")]
fn fold_kernel<E: Numeric, N: Size>(
    columns: &Tensor<Vector<E, N>>,
    mut image: LinearViewMut<'_, Vector<E, N>>,
    dims: Sequence<FastDivmod<usize>>,
    windows: Windows,
    #[define(E)] _dtype: ElemType,
) {
    if !image.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let lanes = columns.vector_size();
    let (rest, channel) = dims[3].div_mod(ABSOLUTE_POS * lanes);
    let (rest, x) = dims[2].div_mod(rest);
    let (sample, y) = dims[1].div_mod(rest);
    let y = y + windows.pad_0;
    let x = x + windows.pad_1;
    let mut total = Vector::new(E::from_int(0));
    for tap_y in 0..windows.kernel_0 {
        let shift_y = tap_y * windows.dilation_0;
        if y >= shift_y && (y - shift_y).is_multiple_of(windows.stride_0) {
            let out_y = (y - shift_y) / windows.stride_0;
            if out_y < windows.output_0 {
                for tap_x in 0..windows.kernel_1 {
                    let shift_x = tap_x * windows.dilation_1;
                    if x >= shift_x && (x - shift_x).is_multiple_of(windows.stride_1) {
                        let out_x = (x - shift_x) / windows.stride_1;
                        if out_x < windows.output_1 {
                            let row =
                                (sample * windows.output_0 + out_y) * windows.output_1 + out_x;
                            let tap = tap_y * windows.kernel_1 + tap_x;
                            let offset = row * columns.stride(0) + tap * windows.channels + channel;
                            total += columns[offset / lanes];
                        }
                    }
                }
            }
        }
    }
    image.write(ABSOLUTE_POS, total);
}

/// Returns the number of channels that a thread processes: a width that the device loads at once
/// and that divides the number of channels and the offset of each row of `tensor`.
fn lanes(tensor: &CubeTensor, channels: usize) -> usize {
    let strides = tensor.meta.strides();
    let (last, outer) = strides.split_last().expect("tensors here have dimensions");
    let divides = |lanes: usize| {
        channels.is_multiple_of(lanes) && outer.iter().all(|stride| stride.is_multiple_of(lanes))
    };
    let mut sizes = tensor.client.io_optimized_vector_sizes(size_of::<f32>());
    let widest = sizes.find(|lanes| *last == 1 && divides(*lanes));
    widest.unwrap_or(1)
}

fn divisors(dims: &[usize]) -> SequenceArg<FastDivmod<usize>> {
    let mut divisors = SequenceArg::new();
    for size in dims {
        divisors.push(*size);
    }
    divisors
}

fn empty_like(tensor: &CubeTensor, dims: &[usize]) -> CubeTensor {
    empty_device_contiguous_dtype(
        tensor.client.clone(),
        tensor.device.clone(),
        Shape::from(dims.to_vec()),
        DType::F32,
    )
}

/// Returns the windows of `samples` samples `[samples, height, width, inputs]` as a matrix
/// `[samples · output positions, kernel positions · inputs]`.
pub(super) fn unfold(input: CubeTensor, shape: &ConvShape) -> CubeTensor {
    let samples = input.shape()[0];
    let dims = [
        samples,
        shape.output_size[0],
        shape.output_size[1],
        shape.kernel[0],
        shape.kernel[1],
        shape.inputs,
    ];
    let matrix = [samples * shape.output_plane(), shape.depth()];
    let columns = empty_like(&input, &matrix);
    let lanes = lanes(&input, shape.inputs);
    let threads = columns.meta.num_elements() / lanes;
    let client = input.client.clone();
    let cube_dim = CubeDim::new(&client, threads);
    unfold_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, threads, cube_dim),
        cube_dim,
        input
            .required_address_type()
            .max(columns.required_address_type()),
        lanes,
        input.into_tensor_arg(),
        columns.clone().into_linear_view(),
        divisors(&dims),
        windows(shape),
        f32::elem_type_native(),
    );
    columns
}

/// Adds the windows of `samples` samples, a matrix as [`unfold`] returns, to
/// `[samples, height, width, inputs]`.
pub(super) fn fold(columns: CubeTensor, samples: usize, shape: &ConvShape) -> CubeTensor {
    let [height, width] = shape.input_size;
    let dims = [samples, height, width, shape.inputs];
    let image = empty_like(&columns, &dims);
    let lanes = lanes(&columns, shape.inputs);
    let threads = image.meta.num_elements() / lanes;
    let client = columns.client.clone();
    let cube_dim = CubeDim::new(&client, threads);
    fold_kernel::launch(
        &client,
        calculate_cube_count_elemwise(&client, threads, cube_dim),
        cube_dim,
        columns
            .required_address_type()
            .max(image.required_address_type()),
        lanes,
        columns.into_tensor_arg(),
        image.clone().into_linear_view(),
        divisors(&dims),
        windows(shape),
        f32::elem_type_native(),
    );
    image
}

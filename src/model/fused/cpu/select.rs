//! Selects the convolution kernels: those with AVX-512, where the processor has it, else matrix
//! products by `gemm`.

use std::sync::LazyLock;

use rgby_kernels::{ConvolutionShape, Kernels};

use super::buffers;
use super::convolve;
use super::gemm::Matrix;
use super::geometry::Geometry;

static KERNELS: LazyLock<Option<Kernels>> = LazyLock::new(Kernels::detect);

/// Returns the AVX-512 kernels for the geometry, if they support it.
fn kernels(geometry: &Geometry) -> Option<(Kernels, ConvolutionShape)> {
    let kernels = (*KERNELS)?;
    let shape = ConvolutionShape {
        batch: geometry.batch,
        inputs: geometry.inputs,
        outputs: geometry.outputs,
        input_size: geometry.input_size,
        output_size: geometry.output_size,
        kernel: geometry.kernel,
        stride: geometry.stride,
        pad: geometry.pad,
    };
    shape.is_supported().then_some((kernels, shape))
}

/// Convolves `input` with `filters` `[outputs, inputs·taps]`.
pub(super) fn convolve(
    geometry: &Geometry,
    (input, filters): (&[f32], &[f32]),
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let Some((kernels, shape)) = kernels(geometry) else {
        let depth = geometry.inputs * geometry.taps();
        let filters = Matrix::rows(filters, [geometry.outputs, depth]);
        return convolve::convolve(geometry, input, filters, bias);
    };
    let mut output = buffers::take(geometry.output_len());
    kernels.convolve(&shape, (input, filters), bias, &mut output);
    output
}

/// Returns the gradient of the input, given the output's gradient.
pub(super) fn input_gradient(geometry: &Geometry, filters: &[f32], gradient: &[f32]) -> Vec<f32> {
    let Some((kernels, shape)) = kernels(geometry) else {
        return convolve::input_gradient(geometry, filters, gradient);
    };
    let mut result = buffers::take(geometry.input_len());
    kernels.input_gradient(&shape, (filters, gradient), &mut result);
    result
}

/// Returns the gradient of the filters, given the output's gradient.
pub(super) fn filters_gradient(geometry: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let Some((kernels, shape)) = kernels(geometry) else {
        return convolve::filters_gradient(geometry, input, gradient);
    };
    let mut result = buffers::take(geometry.filters_len());
    kernels.filters_gradient(&shape, (input, gradient), &mut result);
    result
}

#[cfg(test)]
mod tests {
    use burn::tensor::ops::ConvOptions;

    use super::*;

    fn values(seed: usize, length: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 10_007) as f32 / 5003.0 - 1.0;
        (0..length).map(value).collect()
    }

    /// Without AVX-512, both sides are the same code, and the comparison with Burn's operations in
    /// the parent module tests it.
    #[test]
    fn both_kinds_of_kernels_agree() {
        let shapes = [
            ([3, 40, 7, 9], 33),
            ([9, 17, 7, 7], 70),
            ([2, 4, 31, 23], 24),
        ];
        for (kernel, stride, pad) in [
            ([1, 1], 1, 0),
            ([3, 3], 1, 1),
            ([3, 3], 2, 1),
            ([1, 7], 1, 3),
        ] {
            for (input, outputs) in shapes {
                let options = ConvOptions::new([stride; 2], [pad; 2], [1, 1], 1);
                let filters = [outputs, input[1], kernel[0], kernel[1]];
                let geometry = Geometry::new(input, filters, &options).unwrap();
                let x = values(1, geometry.input_len());
                let w = values(2, geometry.filters_len());
                let dy = values(3, geometry.output_len());
                let depth = geometry.inputs * geometry.taps();
                let matrix = Matrix::rows(&w, [outputs, depth]);
                let bias = values(4, outputs);
                let pairs = [
                    (
                        convolve(&geometry, (&x, &w), Some(&bias)),
                        convolve::convolve(&geometry, &x, matrix, Some(&bias)),
                    ),
                    (
                        input_gradient(&geometry, &w, &dy),
                        convolve::input_gradient(&geometry, &w, &dy),
                    ),
                    (
                        filters_gradient(&geometry, &x, &dy),
                        convolve::filters_gradient(&geometry, &x, &dy),
                    ),
                ];
                for (selected, products) in pairs {
                    let largest = products.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                    for (a, b) in selected.iter().zip(&products) {
                        assert!(
                            (a - b).abs() <= 1e-5 * largest,
                            "{geometry:?}: {a} is not {b}"
                        );
                    }
                }
            }
        }
    }
}

//! Convolution and the gradient of its input.

use rayon::prelude::*;

use crate::output::Placement;
use crate::panels::PanelGrid;
use crate::plan::Window;
use crate::product::{Filters, Product, chunk};
use crate::scratch::with_values;
use crate::tile::ROWS;
use crate::{ConvolutionShape, Kernels};

/// Number of panels up to which filters are not packed, although each panel reads them in an
/// unfavourable order.
const FEW_PANELS: usize = 2;

pub(crate) fn convolve(
    kernels: Kernels,
    shape: &ConvolutionShape,
    (input, filters): (&[f32], &[f32]),
    bias: Option<&[f32]>,
    output: &mut [f32],
) {
    let placement = Placement {
        channels: shape.outputs,
        plane: shape.output_plane(),
        width: shape.output_size[1],
        step: 1,
        start: 0,
    };
    let window = Window::of(shape);
    let operands = (input, Filters::Rows(filters));
    let mut product = Product::new(&window, operands, placement, output);
    product.bias = bias;
    product.run(kernels);
}

/// Computes the positions of each remainder by the stride separately: each is a convolution of
/// stride 1 by some of the taps.
pub(crate) fn input_gradient(
    kernels: Kernels,
    shape: &ConvolutionShape,
    (filters, gradient): (&[f32], &[f32]),
    result: &mut [f32],
) {
    let step = shape.stride[0];
    if shape.kernel.iter().any(|size| *size < step) {
        result.fill(0.0);
    }
    for y in 0..step.min(shape.input_size[0]) {
        for x in 0..step.min(shape.input_size[1]) {
            let (window, taps) = reversed(shape, [y, x]);
            if taps.is_empty() {
                continue;
            }
            let placement = Placement {
                channels: shape.inputs,
                plane: shape.input_plane(),
                width: shape.input_size[1],
                step,
                start: y * shape.input_size[1] + x,
            };
            let few = PanelGrid::new(window.columns()).count <= FEW_PANELS;
            let dense = step == 1 && taps.len() > 1;
            if (few || dense) && shape.inputs.is_multiple_of(ROWS) {
                let filters = Filters::Reversed {
                    values: filters,
                    shape,
                    taps: &taps,
                };
                Product::new(&window, (gradient, filters), placement, result).run(kernels);
            } else {
                let rows = shape.inputs.next_multiple_of(ROWS);
                with_values(rows * shape.outputs * taps.len(), |packed| {
                    pack(shape, filters, &taps, packed);
                    let filters = Filters::Packed(packed);
                    Product::new(&window, (gradient, filters), placement, result).run(kernels);
                });
            }
        }
    }
}

/// Returns the window on the output's gradient for input positions with these remainders, and the
/// taps that it has.
fn reversed(shape: &ConvolutionShape, first: [usize; 2]) -> (Window, Vec<usize>) {
    let step = shape.stride[0] as isize;
    let size = |axis: usize| (shape.input_size[axis] - first[axis]).div_ceil(shape.stride[0]);
    let (mut offsets, mut taps) = (Vec::new(), Vec::new());
    for vertical in 0..shape.kernel[0] {
        for horizontal in 0..shape.kernel[1] {
            let tap = [vertical, horizontal];
            let from = |axis: usize| (first[axis] + shape.pad[axis]) as isize - tap[axis] as isize;
            let from = [from(0), from(1)];
            if from.iter().all(|from| from.rem_euclid(step) == 0) {
                offsets.push(from.map(|from| from.div_euclid(step)));
                taps.push(vertical * shape.kernel[1] + horizontal);
            }
        }
    }
    let window = Window {
        batch: shape.batch,
        channels: shape.outputs,
        size: shape.output_size,
        grid: [size(0), size(1)],
        stride: 1,
        taps: offsets,
    };
    let window = if step == 1 {
        window.flattened()
    } else {
        window
    };
    (window, taps)
}

/// Packs the filters for the gradient of the input, some taps only.
fn pack(shape: &ConvolutionShape, filters: &[f32], taps: &[usize], packed: &mut [f32]) {
    let (all, row) = (shape.taps(), shape.inputs * shape.taps());
    let chunk = chunk(shape.outputs, taps.len());
    let mut parts = Vec::new();
    let mut rest = packed;
    for first in (0..shape.outputs).step_by(chunk) {
        let channels = chunk.min(shape.outputs - first);
        for block in (0..shape.inputs).step_by(ROWS) {
            let (part, after) = rest.split_at_mut(channels * taps.len() * ROWS);
            parts.push((first, block, part));
            rest = after;
        }
    }
    let parts = parts.into_par_iter().with_min_len(8);
    parts.for_each(|(first, block, part)| {
        let rows = ROWS.min(shape.inputs - block);
        for (channel, part) in part.chunks_exact_mut(taps.len() * ROWS).enumerate() {
            let from = &filters[(first + channel) * row + block * all..][..rows * all];
            // Copies of a constant length need no call.
            if let ([to], ([from], []), 1) = (part.as_chunks_mut().0, from.as_chunks(), all) {
                let to: &mut [f32; ROWS] = to;
                *to = *from;
                continue;
            }
            for (to, &tap) in part.chunks_exact_mut(ROWS).zip(taps) {
                to.fill(0.0);
                let from = from[tap..].iter().step_by(all);
                to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
            }
        }
    });
}

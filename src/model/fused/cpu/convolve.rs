//! Convolution and its gradients as matrix products on slices.
//!
//! Each thread computes blocks of samples, or of a sample's channels. The blocks depend on the
//! shape alone, so the results do not depend on the number of threads.

use std::cell::RefCell;
use std::ops::Range;

use rayon::prelude::*;

use super::buffers;
use super::gemm::{Matrix, MatrixMut, multiply};
use super::geometry::{Geometry, OutputTile, even_share};
use super::im2col::{fold, unfold};

/// Minimum number of blocks of each operation, if its shape allows.
const MIN_BLOCKS: usize = 4;
/// Number of values of the filters' gradient that a thread accumulates at a time.
const GRADIENT_VALUES: usize = 128 * 1024;
/// Maximum number of columns of such a part of the gradient.
const GRADIENT_COLUMNS: usize = 256;

thread_local! {
    static PANEL: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` on the thread's panel of `length` unspecified values.
fn with_panel(length: usize, work: impl FnOnce(&mut [f32])) {
    PANEL.with_borrow_mut(|panel| {
        if panel.len() < length {
            panel.resize(length, 0.0);
        }
        work(&mut panel[..length]);
    });
}

/// A block of the output: some channels of joined samples, `[channels, samples·positions]`.
struct OutputBlock<'a> {
    samples: Range<usize>,
    channels: Range<usize>,
    values: &'a mut [f32],
}

impl Geometry {
    /// Returns the sample range of each group of joined samples.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> {
        let (joined, batch) = (self.joined(), self.batch);
        (0..batch)
            .step_by(joined)
            .map(move |first| first..(first + joined).min(batch))
    }

    fn output_blocks<'a>(&self, mut output: &'a mut [f32]) -> Vec<OutputBlock<'a>> {
        let share = self
            .outputs
            .div_ceil(MIN_BLOCKS.div_ceil(self.groups().count()));
        let share = share.next_multiple_of(16).min(self.outputs);
        let mut blocks = Vec::new();
        for samples in self.groups() {
            let columns = samples.len() * self.output_plane();
            let (group, rest) = output.split_at_mut(self.outputs * columns);
            for (number, values) in group.chunks_mut(share * columns).enumerate() {
                let first = number * share;
                blocks.push(OutputBlock {
                    samples: samples.clone(),
                    channels: first..first + values.len() / columns,
                    values,
                });
            }
            output = rest;
        }
        blocks
    }

    /// Returns the tiles of a group of samples, of at most `rows` rows each.
    fn tiles(&self, samples: &Range<usize>, rows: usize) -> impl Iterator<Item = OutputTile> {
        let (samples, height) = (samples.clone(), self.output_size[0]);
        let rows = if samples.len() > 1 { height } else { rows };
        (0..height).step_by(rows).map(move |first| OutputTile {
            samples: samples.clone(),
            rows: first..(first + rows).min(height),
        })
    }

    fn sample<'a>(&self, input: &'a [f32], sample: usize) -> &'a [f32] {
        let length = self.inputs * self.input_plane();
        &input[sample * length..][..length]
    }
}

/// Convolves `input` with `filters` `[outputs, inputs·taps]`.
pub(super) fn convolve(
    geometry: &Geometry,
    input: &[f32],
    filters: Matrix<'_>,
    bias: Option<&[f32]>,
) -> Vec<f32> {
    let mut output = buffers::take(geometry.output_len());
    geometry
        .output_blocks(&mut output)
        .into_par_iter()
        .for_each(|mut block| {
            if let Some(bias) = bias {
                let columns = block.values.len() / block.channels.len();
                let rows = block.values.chunks_exact_mut(columns);
                for (row, bias) in rows.zip(&bias[block.channels.clone()]) {
                    row.fill(*bias);
                }
            }
            convolve_block(geometry, input, filters, bias.is_some(), &mut block);
        });
    if geometry.joined() == 1 {
        return output;
    }
    let output_by_sample = split_joined(geometry, &output);
    buffers::give(output);
    output_by_sample
}

fn convolve_block(
    geometry: &Geometry,
    input: &[f32],
    filters: Matrix<'_>,
    accumulate: bool,
    block: &mut OutputBlock<'_>,
) {
    let (taps, inputs) = (geometry.taps(), geometry.inputs);
    let stride = block.samples.len() * geometry.output_plane();
    let channels = &block.channels;
    if geometry.is_pointwise() && block.samples.len() == 1 {
        let out = MatrixMut {
            values: block.values,
            shape: [channels.len(), stride],
            stride,
        };
        let input = geometry.sample(input, block.samples.start);
        let input = Matrix::rows(input, [inputs, stride]);
        multiply(
            out,
            filters.block(channels.clone(), 0..inputs),
            input,
            accumulate,
        );
        return;
    }
    for tile in geometry.tiles(&block.samples, geometry.panel_rows()) {
        let columns = tile.samples.len() * tile.rows.len() * geometry.output_size[1];
        let most = geometry.panel_channels(columns);
        for first in (0..inputs).step_by(most) {
            let range = first..(first + most).min(inputs);
            let depth = range.len() * taps;
            with_panel(depth * columns, |panel| {
                unfold(geometry, input, range.clone(), &tile, panel);
                let out = MatrixMut {
                    values: &mut block.values[tile.rows.start * geometry.output_size[1]..],
                    shape: [channels.len(), columns],
                    stride,
                };
                let filters = filters.block(channels.clone(), first * taps..first * taps + depth);
                let panel = Matrix::rows(panel, [depth, columns]);
                multiply(out, filters, panel, accumulate || first > 0);
            });
        }
    }
}

/// Reorders `[groups, channels, samples of a group, positions]` to `[batch, channels, positions]`.
fn split_joined(geometry: &Geometry, joined: &[f32]) -> Vec<f32> {
    let mut output = buffers::take(joined.len());
    let (plane, size) = (geometry.output_plane(), geometry.joined());
    let sample_len = geometry.outputs * plane;
    output
        .par_chunks_exact_mut(sample_len)
        .enumerate()
        .for_each(|(sample, values)| {
            let first = sample / size * size;
            let samples = size.min(geometry.batch - first);
            let group =
                joined[first * sample_len..][(sample - first) * plane..].chunks(samples * plane);
            for (to, from) in values.chunks_exact_mut(plane).zip(group) {
                to.copy_from_slice(&from[..plane]);
            }
        });
    output
}

/// The reverse of [`split_joined`].
fn join_samples(geometry: &Geometry, output: &[f32]) -> Vec<f32> {
    let mut joined = buffers::take(output.len());
    let (plane, size) = (geometry.output_plane(), geometry.joined());
    let sample_len = geometry.outputs * plane;
    joined
        .par_chunks_mut(size * sample_len)
        .enumerate()
        .for_each(|(group, values)| {
            let from = &output[group * size * sample_len..][..values.len()];
            let samples = values.len() / sample_len;
            for (number, to) in values.chunks_exact_mut(plane).enumerate() {
                let (channel, sample) = (number / samples, number % samples);
                to.copy_from_slice(&from[(sample * geometry.outputs + channel) * plane..][..plane]);
            }
        });
    joined
}

/// Returns the gradient of the filters `[outputs, inputs·taps]`, given the output's gradient.
pub(super) fn filters_gradient(geometry: &Geometry, input: &[f32], gradient: &[f32]) -> Vec<f32> {
    let joined = (geometry.joined() > 1).then(|| join_samples(geometry, gradient));
    let gradient = joined.as_deref().unwrap_or(gradient);
    let (outputs, inputs, taps) = (geometry.outputs, geometry.inputs, geometry.taps());
    let most = (GRADIENT_VALUES / outputs).min(GRADIENT_COLUMNS) / taps;
    let most = even_share(inputs, most.max(1));
    let shares: Vec<Range<usize>> = (0..inputs)
        .step_by(most)
        .map(|first| first..(first + most).min(inputs))
        .collect();
    // With few channels, partial sums over groups of samples are computed in parallel, then added.
    let groups: Vec<Range<usize>> = geometry.groups().collect();
    let sums = MIN_BLOCKS.div_ceil(shares.len()).min(groups.len());
    let sums: Vec<_> = groups.chunks(groups.len().div_ceil(sums)).collect();
    let tasks: Vec<_> = sums
        .iter()
        .flat_map(|groups| shares.iter().map(move |share| (*groups, share)))
        .collect();
    let parts: Vec<Vec<f32>> = tasks
        .into_par_iter()
        .map(|(groups, share)| {
            let mut sum = buffers::take(outputs * share.len() * taps);
            for (number, samples) in groups.iter().enumerate() {
                add_gradient(
                    geometry,
                    (input, gradient),
                    (samples, share),
                    &mut sum,
                    number > 0,
                );
            }
            sum
        })
        .collect();
    let mut output = buffers::take(geometry.filters_len());
    let row_len = inputs * taps;
    output
        .par_chunks_mut(row_len)
        .enumerate()
        .for_each(|(row, values)| {
            for (number, part) in parts.iter().enumerate() {
                let share = &shares[number % shares.len()];
                let length = share.len() * taps;
                let from = &part[row * length..][..length];
                let to = &mut values[share.start * taps..][..length];
                if number < shares.len() {
                    to.copy_from_slice(from);
                } else {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                }
            }
        });
    parts.into_iter().chain(joined).for_each(buffers::give);
    output
}

/// Adds the contribution of a group of samples to the filters' gradient for a range of input
/// channels.
fn add_gradient(
    geometry: &Geometry,
    (input, gradient): (&[f32], &[f32]),
    (samples, share): (&Range<usize>, &Range<usize>),
    sum: &mut [f32],
    accumulate: bool,
) {
    let (outputs, plane) = (geometry.outputs, geometry.output_plane());
    let stride = samples.len() * plane;
    let gradient = &gradient[samples.start * outputs * plane..][..outputs * stride];
    let gradient = Matrix::rows(gradient, [outputs, stride]);
    let width = share.len() * geometry.taps();
    let mut add = |gradient, input: Matrix, accumulate| {
        let out = MatrixMut {
            values: &mut *sum,
            shape: [outputs, width],
            stride: width,
        };
        multiply(out, gradient, input.transposed(), accumulate);
    };
    if geometry.is_pointwise() && samples.len() == 1 {
        let input = Matrix::rows(
            geometry.sample(input, samples.start),
            [geometry.inputs, plane],
        );
        add(gradient, input.block(share.clone(), 0..plane), accumulate);
        return;
    }
    let rows = geometry.gradient_rows(width);
    for tile in geometry.tiles(samples, rows) {
        let columns = tile.samples.len() * tile.rows.len() * geometry.output_size[1];
        let first = tile.rows.start * geometry.output_size[1];
        with_panel(width * columns, |panel| {
            unfold(geometry, input, share.clone(), &tile, panel);
            let panel = Matrix::rows(panel, [width, columns]);
            let gradient = gradient.block(0..outputs, first..first + columns);
            add(gradient, panel, accumulate || first > 0);
        });
    }
}

/// Returns the gradient of the input, given the output's gradient and the filters
/// `[outputs, inputs·taps]`.
pub(super) fn input_gradient(geometry: &Geometry, filters: &[f32], gradient: &[f32]) -> Vec<f32> {
    let Some(reversed) = geometry.reversed() else {
        return folded_gradient(geometry, filters, gradient);
    };
    let (taps, inputs, outputs) = (geometry.taps(), geometry.inputs, geometry.outputs);
    if taps == 1 {
        let filters = Matrix::rows(filters, [outputs, inputs]).transposed();
        return convolve(&reversed, gradient, filters, None);
    }
    let mut turned = buffers::take(filters.len());
    turned
        .par_chunks_exact_mut(outputs * taps)
        .enumerate()
        .for_each(|(input, values)| {
            for (output, to) in values.chunks_exact_mut(taps).enumerate() {
                let from = &filters[(output * inputs + input) * taps..][..taps];
                to.iter_mut()
                    .zip(from.iter().rev())
                    .for_each(|(to, from)| *to = *from);
            }
        });
    let result = convolve(
        &reversed,
        gradient,
        Matrix::rows(&turned, [inputs, outputs * taps]),
        None,
    );
    buffers::give(turned);
    result
}

/// Like [`input_gradient`], for strides above 1: adds the gradient of each value at the input
/// position from which a filter read it.
fn folded_gradient(geometry: &Geometry, filters: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (outputs, plane, taps) = (geometry.outputs, geometry.output_plane(), geometry.taps());
    let filters = Matrix::rows(filters, [outputs, geometry.inputs * taps]);
    let share = geometry.panel_channels(plane);
    let mut result = buffers::take(geometry.input_len());
    let mut blocks = Vec::new();
    for (sample, values) in result
        .chunks_mut(geometry.inputs * geometry.input_plane())
        .enumerate()
    {
        let values = values.chunks_mut(share * geometry.input_plane());
        blocks.extend(
            values
                .enumerate()
                .map(|(number, values)| (sample, number * share, values)),
        );
    }
    blocks.into_par_iter().for_each(|(sample, first, values)| {
        let height = values.len() / geometry.input_plane() * taps;
        let gradient = &gradient[sample * outputs * plane..][..outputs * plane];
        let gradient = Matrix::rows(gradient, [outputs, plane]);
        let filters = filters.block(0..outputs, first * taps..first * taps + height);
        with_panel(height * plane, |panel| {
            let out = MatrixMut {
                values: panel,
                shape: [height, plane],
                stride: plane,
            };
            multiply(out, filters.transposed(), gradient, false);
            values.fill(0.0);
            fold(geometry, panel, values);
        });
    });
    result
}

/// Returns the gradient of the bias, given the output's gradient.
pub(super) fn bias_gradient(geometry: &Geometry, gradient: &[f32]) -> Vec<f32> {
    let plane = geometry.output_plane();
    let planes = gradient.chunks_exact(plane);
    let sums: Vec<f32> = planes.map(super::sums::sum).collect();
    let channel = |channel| sums[channel..].iter().step_by(geometry.outputs).sum();
    (0..geometry.outputs).map(channel).collect()
}

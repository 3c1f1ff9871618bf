//! im2col: unfolds an input into the matrix whose product with the filters is the convolution.
//!
//! A tap is one position of the kernel.

use std::ops::Range;

use super::geometry::{Geometry, OutputTile};

/// The columns of a row that a tap reads.
struct TapColumns {
    /// Output columns whose input column is inside the image.
    inside: Range<usize>,
    /// Input column of `inside.start`.
    first: usize,
}

impl Geometry {
    /// Returns the columns of horizontal tap `tap` that are inside the input.
    fn tap_columns(&self, tap: usize) -> TapColumns {
        let (stride, pad) = (self.stride[1], self.pad[1]);
        let start = pad.saturating_sub(tap).div_ceil(stride);
        let end = (self.input_size[1] + pad)
            .saturating_sub(tap)
            .div_ceil(stride);
        let end = end.min(self.output_size[1]);
        let inside = start.min(end)..end;
        let first = (inside.start * stride + tap).saturating_sub(pad);
        TapColumns { inside, first }
    }

    /// Returns the input row that vertical tap `tap` reads for output row `row`; `None` if outside.
    fn input_row(&self, row: usize, tap: usize) -> Option<usize> {
        let y = (row * self.stride[0] + tap).checked_sub(self.pad[0])?;
        (y < self.input_size[0]).then_some(y)
    }
}

/// Writes the panel `[channels·taps, positions of the tile]` of `input`; `panel` must have this
/// length.
pub(super) fn unfold(
    geometry: &Geometry,
    input: &[f32],
    channels: Range<usize>,
    tile: &OutputTile,
    panel: &mut [f32],
) {
    let [down, right] = geometry.kernel;
    let part = tile.rows.len() * geometry.output_size[1];
    let columns = part * tile.samples.len();
    let mut lines = panel.chunks_exact_mut(columns);
    for channel in channels {
        for vertical in 0..down {
            for horizontal in 0..right {
                let Some(line) = lines.next() else { return };
                for (sample, part) in tile.samples.clone().zip(line.chunks_exact_mut(part)) {
                    let plane = (sample * geometry.inputs + channel) * geometry.input_plane();
                    let plane = &input[plane..][..geometry.input_plane()];
                    unfold_plane(geometry, plane, [vertical, horizontal], &tile.rows, part);
                }
            }
        }
    }
}

/// Writes the values that one tap reads from one channel of one sample.
fn unfold_plane(
    geometry: &Geometry,
    plane: &[f32],
    tap: [usize; 2],
    rows: &Range<usize>,
    part: &mut [f32],
) {
    let (width, columns, stride) = (
        geometry.input_size[1],
        geometry.tap_columns(tap[1]),
        geometry.stride[1],
    );
    if geometry.stride == [1, 1] && geometry.input_size[1] == geometry.output_size[1] {
        unfold_shifted(geometry, plane, tap, rows, part);
        return;
    }
    for (row, line) in rows
        .clone()
        .zip(part.chunks_exact_mut(geometry.output_size[1]))
    {
        let Some(y) = geometry.input_row(row, tap[0]) else {
            line.fill(0.0);
            continue;
        };
        let source = &plane[y * width..][..width];
        line[..columns.inside.start].fill(0.0);
        line[columns.inside.end..].fill(0.0);
        let line = &mut line[columns.inside.clone()];
        if stride == 1 {
            line.copy_from_slice(&source[columns.first..][..line.len()]);
        } else if !line.is_empty() {
            let source = source[columns.first..].iter().step_by(stride);
            line.iter_mut()
                .zip(source)
                .for_each(|(to, from)| *to = *from);
        }
    }
}

/// Like [`unfold_plane`], for equal input and output widths: copies the plane with an offset, then
/// sets the columns that wrapped around from neighbouring rows to 0.
fn unfold_shifted(
    geometry: &Geometry,
    plane: &[f32],
    tap: [usize; 2],
    rows: &Range<usize>,
    part: &mut [f32],
) {
    let (width, columns) = (geometry.input_size[1], geometry.tap_columns(tap[1]));
    // Offset of the part's first value in the plane, as a positive and a negative term.
    let (after, before) = (
        (rows.start + tap[0]) * width + tap[1],
        geometry.pad[0] * width + geometry.pad[1],
    );
    let start = before.saturating_sub(after).min(part.len());
    let source = &plane[after.saturating_sub(before).min(plane.len())..];
    let length = source.len().min(part.len() - start);
    part[..start].fill(0.0);
    part[start..][..length].copy_from_slice(&source[..length]);
    part[start + length..].fill(0.0);
    for column in (0..columns.inside.start).chain(columns.inside.end..width) {
        let column = part.iter_mut().skip(column).step_by(width);
        column.for_each(|value| *value = 0.0);
    }
}

/// Reverse of [`unfold`]: adds each value of `panel` to the position in `planes` that it was read
/// from. `planes` are the channels of one sample; `panel` covers all its positions.
pub(super) fn fold(geometry: &Geometry, panel: &[f32], planes: &mut [f32]) {
    let [down, right] = geometry.kernel;
    let (width, stride) = (geometry.input_size[1], geometry.stride[1]);
    let mut lines = panel.chunks_exact(geometry.output_plane());
    for plane in planes.chunks_exact_mut(geometry.input_plane()) {
        for vertical in 0..down {
            for horizontal in 0..right {
                let Some(line) = lines.next() else { return };
                let columns = geometry.tap_columns(horizontal);
                for (row, part) in line.chunks_exact(geometry.output_size[1]).enumerate() {
                    let Some(y) = geometry.input_row(row, vertical) else {
                        continue;
                    };
                    let part = &part[columns.inside.clone()];
                    if part.is_empty() {
                        continue;
                    }
                    let to = plane[y * width + columns.first..(y + 1) * width].iter_mut();
                    to.step_by(stride)
                        .zip(part)
                        .for_each(|(to, from)| *to += from);
                }
            }
        }
    }
}

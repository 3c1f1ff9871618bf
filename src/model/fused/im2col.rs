//! Unfolding an input into the matrix whose product with the filters is the convolution.

use std::ops::Range;

use super::geometry::{Geometry, Tile};

/// Where a tap reads in a row.
struct Span {
    /// Output columns whose input is inside the image.
    inside: Range<usize>,
    /// Input column of `inside.start`.
    first: usize,
}

impl Geometry {
    /// Columns of `tap` that lie inside the input.
    fn span(&self, tap: usize) -> Span {
        let (stride, pad) = (self.stride[1], self.pad[1]);
        let start = pad.saturating_sub(tap).div_ceil(stride);
        let end = (self.from[1] + pad).saturating_sub(tap).div_ceil(stride);
        let end = end.min(self.to[1]);
        let inside = start.min(end)..end;
        let first = (inside.start * stride + tap).saturating_sub(pad);
        Span { inside, first }
    }

    /// Input row that `tap` of output row `row` reads, if it is inside.
    fn input_row(&self, row: usize, tap: usize) -> Option<usize> {
        let y = (row * self.stride[0] + tap).checked_sub(self.pad[0])?;
        (y < self.from[0]).then_some(y)
    }
}

/// Writes the panel `[channels·taps, tile's positions]` of `input`.
///
/// `panel` must be of that length.
pub(super) fn unfold(
    geometry: &Geometry,
    input: &[f32],
    channels: Range<usize>,
    tile: &Tile,
    panel: &mut [f32],
) {
    let [down, right] = geometry.kernel;
    let part = tile.rows.len() * geometry.to[1];
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

/// What one tap sees of one channel of one sample.
fn unfold_plane(
    geometry: &Geometry,
    plane: &[f32],
    tap: [usize; 2],
    rows: &Range<usize>,
    part: &mut [f32],
) {
    let (width, span, stride) = (geometry.from[1], geometry.span(tap[1]), geometry.stride[1]);
    if geometry.stride == [1, 1] && geometry.from[1] == geometry.to[1] {
        unfold_shifted(geometry, plane, tap, rows, part);
        return;
    }
    for (row, line) in rows.clone().zip(part.chunks_exact_mut(geometry.to[1])) {
        let Some(y) = geometry.input_row(row, tap[0]) else {
            line.fill(0.0);
            continue;
        };
        let source = &plane[y * width..][..width];
        line[..span.inside.start].fill(0.0);
        line[span.inside.end..].fill(0.0);
        let line = &mut line[span.inside.clone()];
        if stride == 1 {
            line.copy_from_slice(&source[span.first..][..line.len()]);
        } else if !line.is_empty() {
            let source = source[span.first..].iter().step_by(stride);
            line.iter_mut()
                .zip(source)
                .for_each(|(to, from)| *to = *from);
        }
    }
}

/// As [`unfold_plane`] where rows keep their length: the plane moves as a whole, and then the
/// columns that came around from the neighbouring rows become 0.
fn unfold_shifted(
    geometry: &Geometry,
    plane: &[f32],
    tap: [usize; 2],
    rows: &Range<usize>,
    part: &mut [f32],
) {
    let (width, span) = (geometry.from[1], geometry.span(tap[1]));
    // Where in the plane the part's first value comes from: that many values before or after.
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
    for column in (0..span.inside.start).chain(span.inside.end..width) {
        let column = part.iter_mut().skip(column).step_by(width);
        column.for_each(|value| *value = 0.0);
    }
}

/// Adds to `planes` what [`unfold`] would have read of them: `planes` are the channels of one
/// sample, `panel` covers all its positions.
pub(super) fn fold(geometry: &Geometry, panel: &[f32], planes: &mut [f32]) {
    let [down, right] = geometry.kernel;
    let (width, stride) = (geometry.from[1], geometry.stride[1]);
    let mut lines = panel.chunks_exact(geometry.output_plane());
    for plane in planes.chunks_exact_mut(geometry.input_plane()) {
        for vertical in 0..down {
            for horizontal in 0..right {
                let Some(line) = lines.next() else { return };
                let span = geometry.span(horizontal);
                for (row, part) in line.chunks_exact(geometry.to[1]).enumerate() {
                    let Some(y) = geometry.input_row(row, vertical) else {
                        continue;
                    };
                    let part = &part[span.inside.clone()];
                    if part.is_empty() {
                        continue;
                    }
                    let to = plane[y * width + span.first..(y + 1) * width].iter_mut();
                    to.step_by(stride)
                        .zip(part)
                        .for_each(|(to, from)| *to += from);
                }
            }
        }
    }
}

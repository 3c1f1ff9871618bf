//! The gradient of the filters: a sum over all positions.

use std::arch::x86_64::{
    _mm512_add_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_setzero_ps,
};
use std::ops::Range;

use rayon::prelude::*;

use crate::output::SharedOutput;
use crate::panels::{DEPTH, PanelGrid, TASKS, block_share, part, unfold_transposed};
use crate::plan::Window;
use crate::scratch::{Scratch, with_scratch, with_values};
use crate::shape::even_share;
use crate::tile::{LANES, LaneRun, Left, ROWS, Target, VECTORS, lane_mask, multiply, transpose};
use crate::{ConvolutionShape, Kernels};

/// Number of values of a gradient up to which the positions are divided among tasks.
const SMALL: usize = 64 * 1024;
/// Number of values that a thread adds at a time.
const CHUNK: usize = 16 * 1024;

/// The product of a tensor `[batch, rows, plane]` with a transposed unfolded tensor, summed over
/// all positions: `[rows, columns]`.
struct PositionSum<'a> {
    left: &'a [f32],
    rows: usize,
    window: &'a Window,
    right: &'a [f32],
    columns: PanelGrid,
    /// Row length of the sum.
    width: usize,
}

/// The division of a sum into tasks.
#[derive(Debug, Clone, Copy)]
struct Division {
    /// Length of a chunk of positions.
    chunk: usize,
    chunks: usize,
    /// Partial sums, over parts of the chunks.
    parts: usize,
    /// Parts of the panels.
    groups: usize,
    /// Parts of the rows.
    blocks: usize,
}

/// What a thread adds at a time.
struct Addend {
    positions: Range<usize>,
    panels: Range<usize>,
    /// Blocks of [`ROWS`] rows.
    rows: Range<usize>,
    accumulate: bool,
}

pub(crate) fn filters_gradient(
    kernels: Kernels,
    shape: &ConvolutionShape,
    (input, gradient): (&[f32], &[f32]),
    result: &mut [f32],
) {
    let window = Window::of(shape);
    let outputs = Window::identity(shape.batch, shape.outputs, shape.output_plane());
    let (inputs, positions) = (shape.inputs, window.columns());
    // The tensor with fewer channels is transposed, unless that costs more than it saves.
    let swapped = window.is_identity()
        && shape.outputs * positions + inputs * shape.outputs < inputs * positions;
    let sum = if swapped {
        PositionSum::new((input, inputs), (&outputs, gradient))
    } else {
        PositionSum::new((gradient, shape.outputs), (&window, input))
    };
    let (division, size) = (sum.division(), result.len());
    if !swapped && division.parts == 1 {
        sum.run(kernels, division, result);
        return;
    }
    with_values(size * division.parts, |sums| {
        sum.run(kernels, division, sums);
        let sums: Vec<&[f32]> = sums.chunks_exact(size).collect();
        if swapped {
            let strips = result.par_chunks_mut(LANES * inputs).enumerate();
            // SAFETY: `Kernels` proves the instructions; all sums are `[inputs, outputs]`.
            #[allow(unsafe_code)]
            strips.for_each(|(strip, values)| unsafe {
                add_transposed(&sums, (shape.outputs, inputs), strip * LANES, values);
            });
        } else {
            let chunks = result.par_chunks_mut(CHUNK).enumerate();
            chunks.for_each(|(chunk, values)| {
                let part = chunk * CHUNK..chunk * CHUNK + values.len();
                values.copy_from_slice(&sums[0][part.clone()]);
                for sum in &sums[1..] {
                    let pairs = values.iter_mut().zip(&sum[part.clone()]);
                    pairs.for_each(|(to, from)| *to += from);
                }
            });
        }
    });
}

/// Writes the transposed sum of `sums` `[rows, columns]`, for the columns from `first`.
///
/// # Safety
///
/// The processor has AVX-512; `values` has whole rows of `rows` values, at most [`LANES`].
#[target_feature(enable = "avx512f,avx512dq")]
#[allow(unsafe_code)]
unsafe fn add_transposed(
    sums: &[&[f32]],
    (columns, rows): (usize, usize),
    first: usize,
    values: &mut [f32],
) {
    let count = values.len() / rows;
    for start in (0..rows).step_by(LANES) {
        let height = LANES.min(rows - start);
        let mut square = [_mm512_setzero_ps(); LANES];
        // SAFETY: the masks limit the access to rows and columns of the slices.
        unsafe {
            for sum in sums {
                for (number, vector) in square.iter_mut().enumerate().take(height) {
                    let from = sum.as_ptr().add((start + number) * columns + first);
                    *vector = _mm512_add_ps(*vector, _mm512_maskz_loadu_ps(lane_mask(count), from));
                }
            }
            transpose(&mut square);
            for (number, vector) in square.into_iter().enumerate().take(count) {
                let to = values.as_mut_ptr().add(number * rows + start);
                _mm512_mask_storeu_ps(to, lane_mask(height), vector);
            }
        }
    }
}

impl<'a> PositionSum<'a> {
    fn new((left, rows): (&'a [f32], usize), (window, right): (&'a Window, &'a [f32])) -> Self {
        let width = window.channels * window.taps.len();
        Self {
            left,
            rows,
            window,
            right,
            columns: PanelGrid::new(width),
            width,
        }
    }

    fn division(&self) -> Division {
        let vectors = self.window.columns().div_ceil(LANES);
        let chunk = even_share(vectors, DEPTH / LANES) * LANES;
        let chunks = self.window.columns().div_ceil(chunk);
        let parts = if self.rows * self.width <= SMALL {
            chunks.min(TASKS)
        } else {
            1
        };
        let (mut groups, mut blocks) = (1, 1);
        if parts < TASKS / 2 {
            groups = self.columns.count.min(TASKS);
            let most = self.rows.div_ceil(ROWS).div_ceil(4);
            blocks = (TASKS / parts / groups).clamp(1, most);
        }
        Division {
            chunk,
            chunks,
            parts,
            groups,
            blocks,
        }
    }

    /// Writes the partial sums one after the other to `sums`.
    fn run(&self, _: Kernels, division: Division, sums: &mut [f32]) {
        let Division {
            chunk,
            chunks,
            parts,
            groups,
            blocks,
        } = division;
        let output = SharedOutput::new(sums);
        let size = self.rows * self.width;
        let tasks = (0..parts * groups * blocks).into_par_iter().with_max_len(1);
        tasks.for_each(|task| {
            let (sum, group, block) = (
                task / (groups * blocks),
                task / blocks % groups,
                task % blocks,
            );
            let chunks = part(sum, parts, chunks);
            with_scratch(|scratch| {
                for number in chunks.clone() {
                    let end = ((number + 1) * chunk).min(self.window.columns());
                    let addend = Addend {
                        positions: number * chunk..end,
                        panels: part(group, groups, self.columns.count),
                        rows: part(block, blocks, self.rows.div_ceil(ROWS)),
                        accumulate: number > chunks.start,
                    };
                    // SAFETY: `Kernels` proves the instructions and has checked the slices. Tasks
                    // write different sums, columns or rows.
                    #[allow(unsafe_code)]
                    unsafe {
                        self.add(scratch, &addend, output.pointer().add(sum * size));
                    }
                }
            });
        });
    }

    /// # Safety
    ///
    /// The processor has AVX-512, all slices have the lengths of the shape, and no other thread
    /// writes the same rows and columns.
    #[target_feature(enable = "avx512f,avx512dq,bmi2")]
    #[allow(unsafe_code)]
    unsafe fn add(&self, scratch: &mut Scratch, addend: &Addend, output: *mut f32) {
        let depth = addend.positions.len();
        let size = depth.next_multiple_of(LANES) * VECTORS * LANES;
        let share = block_share(addend.panels.len(), depth);
        let base = scratch.panel(size * share);
        scratch.plan_of(0).build(self.window, &addend.positions);
        self.pieces(&addend.positions, &mut scratch.pieces);
        let plane = self.window.plane();
        for first in addend.panels.clone().step_by(share) {
            let panels = first..(first + share).min(addend.panels.end);
            // SAFETY: the caller's promise; the panels are aligned and have `size` values.
            unsafe {
                for (number, panel) in panels.clone().enumerate() {
                    self.unfold(
                        scratch,
                        &self.columns.columns(panel),
                        base.add(number * size),
                    );
                }
                for row in addend.rows.clone() {
                    let left = Left::Rows {
                        values: self.left.as_ptr().add(row * ROWS * plane),
                        stride: plane,
                        pieces: &scratch.pieces,
                    };
                    for (number, panel) in panels.clone().enumerate() {
                        let columns = self.columns.columns(panel);
                        let right = base.add(number * size);
                        let output = output.add(row * ROWS * self.width + columns.start);
                        let rows = ROWS.min(self.rows - row * ROWS);
                        let to = (output, rows, addend.accumulate);
                        self.multiply(left, right, columns.len(), to);
                    }
                }
            }
        }
    }

    /// Multiplies and writes `columns` columns.
    ///
    /// # Safety
    ///
    /// Like [`multiply`].
    #[target_feature(enable = "avx512f,avx512dq,bmi2")]
    #[allow(unsafe_code)]
    unsafe fn multiply(
        &self,
        left: Left<'_>,
        right: *const f32,
        columns: usize,
        (values, rows, accumulate): (*mut f32, usize, bool),
    ) {
        let runs: [[LaneRun; 1]; VECTORS] = std::array::from_fn(|vector| {
            [LaneRun {
                mask: lane_mask(columns.saturating_sub(vector * LANES)),
                offset: (vector * LANES) as i32,
            }]
        });
        let to = Target {
            values,
            stride: self.width,
            rows,
            bias: [0.0; ROWS],
            accumulate,
            vectors: runs.each_ref().map(|run| &run[..]),
        };
        // SAFETY: the caller's promise.
        unsafe { multiply(left, right, columns.div_ceil(LANES), &to) };
    }

    /// Unfolds the planned positions of a panel's columns, transposed.
    ///
    /// # Safety
    ///
    /// Like [`add`](Self::add); `panel` is aligned and has room.
    #[target_feature(enable = "avx512f,avx512dq,bmi2")]
    #[allow(unsafe_code)]
    unsafe fn unfold(&self, scratch: &Scratch, columns: &Range<usize>, panel: *mut f32) {
        let vectors = columns.len().div_ceil(LANES);
        let (from, plan) = ((self.window, self.right), &scratch.plans[0]);
        for vector in 0..vectors {
            let first = columns.start + vector * LANES;
            // SAFETY: the caller's promise.
            unsafe {
                let to = (panel.add(vector * LANES), vectors * LANES);
                match self.window.stride {
                    1 => unfold_transposed::<1>(from, plan, first, to),
                    _ => unfold_transposed::<2>(from, plan, first, to),
                }
            }
        }
    }

    /// Lists the pieces of a row of the left tensor at these positions.
    fn pieces(&self, positions: &Range<usize>, pieces: &mut Vec<(usize, usize)>) {
        let plane = self.window.plane();
        pieces.clear();
        let mut at = positions.start;
        while at < positions.end {
            let (sample, position) = (at / plane, at % plane);
            let length = (plane - position).min(positions.end - at);
            pieces.push((sample * self.rows * plane + position, length));
            at += length;
        }
    }
}

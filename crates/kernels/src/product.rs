//! The product of filters with an unfolded tensor.

use std::ops::Range;

use rayon::prelude::*;

use crate::output::{Placement, SharedOutput};
use crate::panels::{DEPTH, PanelGrid, TASKS, block_share, part, unfold};
use crate::plan::Window;
use crate::scratch::{Scratch, with_scratch};
use crate::shape::even_share;
use crate::tile::{LANES, LaneRun, Left, ROWS, Target, VECTORS, lane_mask, multiply};
use crate::{ConvolutionShape, Kernels};

/// The left operand of a product, `[rows, channels·taps]`.
pub(crate) enum Filters<'a> {
    /// Row-major.
    Rows(&'a [f32]),
    /// The filters of the convolution, for its reverse.
    Reversed {
        values: &'a [f32],
        shape: &'a ConvolutionShape,
        taps: &'a [usize],
    },
    /// `[chunks of channels, blocks of rows, depth, ROWS]`.
    Packed(&'a [f32]),
}

/// The product of filters with an unfolded tensor.
pub(crate) struct Product<'a> {
    window: &'a Window,
    input: &'a [f32],
    filters: Filters<'a>,
    pub bias: Option<&'a [f32]>,
    placement: Placement,
    output: SharedOutput<'a>,
}

/// The part of a product that a thread computes at a time.
struct Work {
    /// Channels of the window: a chunk of the depth.
    channels: Range<usize>,
    panels: Range<usize>,
    /// Blocks of [`ROWS`] rows.
    rows: Range<usize>,
}

/// Number of channels of a chunk of the depth.
pub(crate) fn chunk(channels: usize, taps: usize) -> usize {
    even_share(channels, DEPTH / taps)
}

impl<'a> Product<'a> {
    pub(crate) fn new(
        window: &'a Window,
        (input, filters): (&'a [f32], Filters<'a>),
        placement: Placement,
        output: &'a mut [f32],
    ) -> Self {
        Self {
            window,
            input,
            filters,
            bias: None,
            placement,
            output: SharedOutput::new(output),
        }
    }

    /// Computes the product.
    pub(crate) fn run(&self, _: Kernels) {
        let count = PanelGrid::new(self.window.columns()).count;
        let rows = self.placement.channels.div_ceil(ROWS);
        let groups = count.min(TASKS.max(count / 64));
        let blocks = TASKS.div_ceil(groups).min(rows.div_ceil(4));
        let taps = self.window.taps.len();
        let chunk = chunk(self.window.channels, taps);
        let tasks = (0..groups * blocks).into_par_iter().with_max_len(1);
        tasks.for_each(|task| {
            let panels = part(task / blocks, groups, count);
            let share = block_share(panels.len(), chunk * taps);
            with_scratch(|scratch| {
                for first in (0..self.window.channels).step_by(chunk) {
                    for panel in panels.clone().step_by(share) {
                        let work = Work {
                            channels: first..(first + chunk).min(self.window.channels),
                            panels: panel..(panel + share).min(panels.end),
                            rows: part(task % blocks, blocks, rows),
                        };
                        // SAFETY: `Kernels` proves the instructions. `Kernels` also checked the
                        // slices. Tasks have different columns or rows of the output.
                        #[allow(unsafe_code)]
                        unsafe {
                            self.work(scratch, &work);
                        }
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
    unsafe fn work(&self, scratch: &mut Scratch, work: &Work) {
        let depth = work.channels.len() * self.window.taps.len();
        let size = depth * VECTORS * LANES;
        // SAFETY: the caller's promise; `unfold_panels` returns aligned panels of `size` values.
        unsafe {
            let base = self.unfold_panels(scratch, work, size);
            let grid = PanelGrid::new(self.window.columns());
            for row in work.rows.clone() {
                let first = row * ROWS;
                let pieces = [(work.channels.start * self.window.taps.len(), depth)];
                let left = self.left(row, work, &pieces);
                for (number, panel) in work.panels.clone().enumerate() {
                    let starts = &scratch.starts[number];
                    let runs = |vector| &scratch.runs[starts[vector]..starts[vector + 1]];
                    let to = Target {
                        values: self.output.pointer().add(first * self.placement.plane),
                        stride: self.placement.plane,
                        rows: ROWS.min(self.placement.channels - first),
                        bias: self.bias_of(first, work.channels.start),
                        accumulate: work.channels.start > 0,
                        vectors: std::array::from_fn(runs),
                    };
                    let right = base.add(number * size);
                    let columns = grid.columns(panel);
                    if self.placement.step == 1 {
                        multiply(left, right, columns.len().div_ceil(LANES), &to);
                    } else {
                        let at = &scratch.positions[number * VECTORS * LANES..][..columns.len()];
                        scatter(left, right, at, &to);
                    }
                }
            }
        }
    }

    /// Unfolds the panels and records where their columns are written.
    ///
    /// # Safety
    ///
    /// Like [`work`](Self::work).
    #[target_feature(enable = "avx512f,avx512dq,bmi2")]
    #[allow(unsafe_code)]
    unsafe fn unfold_panels(&self, scratch: &mut Scratch, work: &Work, size: usize) -> *mut f32 {
        let base = scratch.panel(size * work.panels.len());
        let grid = PanelGrid::new(self.window.columns());
        scratch.runs.clear();
        scratch.starts.clear();
        scratch.positions.clear();
        for (number, panel) in work.panels.clone().enumerate() {
            let columns = grid.columns(panel);
            scratch.plan_of(number).build(self.window, &columns);
            let mut starts = [0; VECTORS + 1];
            for (vector, start) in starts.iter_mut().enumerate() {
                *start = scratch.runs.len();
                if vector < VECTORS {
                    let first = columns.start + vector * LANES;
                    let plane = self.window.plane();
                    self.placement
                        .runs(first, columns.end, plane, &mut scratch.runs);
                }
            }
            scratch.starts.push(starts);
            if self.placement.step > 1 {
                let columns = columns.clone();
                let offset = |column| self.placement.offset(column, self.window.grid);
                scratch.positions.resize(number * VECTORS * LANES, 0);
                scratch.positions.extend(columns.map(offset));
            }
        }
        let from = (self.window, self.input);
        // Channel by channel, because memory is faster in longer pieces.
        for (index, channel) in work.channels.clone().enumerate() {
            for (number, panel) in work.panels.clone().enumerate() {
                let vectors = grid.columns(panel).len().div_ceil(LANES);
                let row = index * self.window.taps.len() * vectors * LANES;
                let plan = &scratch.plans[number];
                // SAFETY: the caller's promise; the plan has this number of vectors.
                unsafe {
                    let to = base.add(number * size + row);
                    match (vectors, self.window.stride) {
                        (1, 1) => unfold::<1, 1>(from, plan, channel, to),
                        (2, 1) => unfold::<2, 1>(from, plan, channel, to),
                        (_, 1) => unfold::<3, 1>(from, plan, channel, to),
                        (1, _) => unfold::<1, 2>(from, plan, channel, to),
                        (2, _) => unfold::<2, 2>(from, plan, channel, to),
                        (_, _) => unfold::<3, 2>(from, plan, channel, to),
                    }
                }
            }
        }
        base
    }

    /// Returns the left operand of a block of rows.
    ///
    /// # Safety
    ///
    /// The slices have the lengths of the shape.
    #[allow(unsafe_code)]
    unsafe fn left<'b>(
        &'b self,
        block: usize,
        work: &Work,
        pieces: &'b [(usize, usize)],
    ) -> Left<'b> {
        let taps = self.window.taps.len();
        let depth = work.channels.len() * taps;
        // SAFETY: rows and channels are in the filters.
        unsafe {
            match &self.filters {
                Filters::Rows(values) => {
                    let stride = self.window.channels * taps;
                    Left::Rows {
                        values: values.as_ptr().add(block * ROWS * stride),
                        stride,
                        pieces,
                    }
                }
                Filters::Reversed {
                    values,
                    shape,
                    taps,
                } => {
                    let row = work.channels.start * shape.inputs + block * ROWS;
                    Left::Spread {
                        values: values.as_ptr().add(row * shape.taps()),
                        stride: shape.taps(),
                        step: shape.inputs * shape.taps(),
                        count: work.channels.len(),
                        taps,
                    }
                }
                Filters::Packed(values) => {
                    let rows = self.placement.channels.next_multiple_of(ROWS);
                    let chunk = rows * work.channels.start * taps;
                    Left::Spread {
                        values: values.as_ptr().add(chunk + block * depth * ROWS),
                        stride: 1,
                        step: ROWS,
                        count: depth,
                        taps: &[0],
                    }
                }
            }
        }
    }

    /// Returns the bias of a block of rows for the first chunk of the depth, else zeros.
    fn bias_of(&self, first: usize, channel: usize) -> [f32; ROWS] {
        let mut values = [0.0; ROWS];
        if let Some(bias) = self.bias.filter(|_| channel == 0) {
            let part = bias[first..].iter().zip(&mut values);
            part.for_each(|(from, to)| *to = *from);
        }
        values
    }
}

/// Multiplies and writes columns with gaps between them, at the offsets `at`.
///
/// # Safety
///
/// Like [`multiply`]; `to` says the first value of the block's rows.
#[target_feature(enable = "avx512f,avx512dq,bmi2")]
#[allow(unsafe_code)]
unsafe fn scatter(left: Left<'_>, right: *const f32, at: &[usize], to: &Target<'_>) {
    let mut tile = [0.0f32; ROWS * VECTORS * LANES];
    let flat: [[LaneRun; 1]; VECTORS] = std::array::from_fn(|vector| {
        [LaneRun {
            mask: lane_mask(LANES),
            offset: (vector * LANES) as i32,
        }]
    });
    let stride = VECTORS * LANES;
    let dense = Target {
        values: tile.as_mut_ptr(),
        stride,
        rows: to.rows,
        bias: to.bias,
        accumulate: false,
        vectors: flat.each_ref().map(|run| &run[..]),
    };
    // SAFETY: the caller's promise, and `tile` has room for all vectors of all rows.
    unsafe {
        multiply(left, right, at.len().div_ceil(LANES), &dense);
        for (row, values) in tile.chunks_exact(stride).take(to.rows).enumerate() {
            for (at, value) in at.iter().zip(values) {
                let to_value = to.values.add(row * to.stride + at);
                let old = if to.accumulate { *to_value } else { 0.0 };
                *to_value = old + value;
            }
        }
    }
}

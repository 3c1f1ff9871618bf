//! Unfolding of a tensor into panels for the right operand of a tile.

use std::arch::x86_64::{__m512, _mm512_setzero_ps, _mm512_store_ps};
use std::ops::Range;

use crate::plan::{Plan, Window};
use crate::shape::even_share;
use crate::tile::{LANES, VECTORS, load, transpose};

/// Target depth of a panel.
pub(crate) const DEPTH: usize = 256;
/// Number of values of the panels that a task unfolds at a time: about 400 kB.
const BLOCK: usize = 96 * 1024;
/// Minimum number of tasks of an operation, if its shape allows.
pub(crate) const TASKS: usize = 8;

/// Division of columns into panels of nearly equal width.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PanelGrid {
    columns: usize,
    vectors: usize,
    pub count: usize,
}

impl PanelGrid {
    pub(crate) fn new(columns: usize) -> Self {
        let vectors = columns.div_ceil(LANES);
        Self {
            columns,
            vectors,
            count: vectors.div_ceil(VECTORS),
        }
    }

    pub(crate) fn columns(&self, panel: usize) -> Range<usize> {
        let at = |panel: usize| (panel * self.vectors / self.count * LANES).min(self.columns);
        at(panel)..at(panel + 1)
    }
}

/// Returns the largest even share of `panels` panels of this depth that fits a block.
pub(crate) fn block_share(panels: usize, depth: usize) -> usize {
    even_share(panels, BLOCK / (depth * VECTORS * LANES))
}

/// Returns part `index` of `of` nearly equal parts of `0..total`.
pub(crate) fn part(index: usize, of: usize, total: usize) -> Range<usize> {
    index * total / of..(index + 1) * total / of
}

/// Loads the values of a tap (and vector) of a plan.
///
/// # Safety
///
/// The processor has AVX-512. The plan was built for the tensor of `STRIDE` at `base` and has the
/// entry `index`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,bmi2")]
#[allow(unsafe_code)]
unsafe fn planned<const STRIDE: usize>(base: *const f32, plan: &Plan, index: usize) -> __m512 {
    // SAFETY: the caller's promise; a plan has one entry more in `starts` than in `first`.
    unsafe {
        let first = *plan.first.get_unchecked(index);
        let mut vector = load::<STRIDE>(_mm512_setzero_ps(), base, first);
        let more = *plan.starts.get_unchecked(index)..*plan.starts.get_unchecked(index + 1);
        for index in more {
            vector = load::<STRIDE>(vector, base, *plan.more.get_unchecked(index as usize));
        }
        vector
    }
}

/// Writes the rows `[taps, V·LANES]` of a channel for the planned columns.
///
/// # Safety
///
/// The processor has AVX-512. The plan was built for `window` with `V` vectors. `values` is the
/// window's tensor. `panel` is aligned and has room.
#[target_feature(enable = "avx512f,avx512dq,bmi2")]
#[allow(unsafe_code)]
pub(crate) unsafe fn unfold<const V: usize, const STRIDE: usize>(
    (window, values): (&Window, &[f32]),
    plan: &Plan,
    channel: usize,
    panel: *mut f32,
) {
    // SAFETY: the channel is in the tensor, and the caller's promise.
    unsafe {
        let base = values.as_ptr().add(channel * window.source_plane());
        for tap in 0..window.taps.len() {
            for vector in 0..V {
                let index = tap * V + vector;
                let value = planned::<STRIDE>(base, plan, index);
                _mm512_store_ps(panel.add(index * LANES), value);
            }
        }
    }
}

/// Writes the planned positions of [`LANES`] rows (channel, tap) from `first`, transposed:
/// `[positions, LANES]`, with a distance of `stride` from position to position.
///
/// # Safety
///
/// Like [`unfold`], with any number of vectors.
#[target_feature(enable = "avx512f,avx512dq,bmi2")]
#[allow(unsafe_code)]
pub(crate) unsafe fn unfold_transposed<const STRIDE: usize>(
    (window, values): (&Window, &[f32]),
    plan: &Plan,
    first: usize,
    (panel, stride): (*mut f32, usize),
) {
    let taps = window.taps.len();
    let vectors = plan.first.len() / taps;
    let rows = LANES.min(window.channels * taps - first);
    let row = |number: usize| {
        let row = first + number.min(rows - 1);
        (row / taps * window.source_plane(), row % taps * vectors)
    };
    let at: [(usize, usize); LANES] = std::array::from_fn(row);
    for vector in 0..vectors {
        // SAFETY: the channels are in the tensor, and the caller's promise.
        unsafe {
            let mut square = [_mm512_setzero_ps(); LANES];
            for (to, (offset, entry)) in square.iter_mut().zip(at).take(rows) {
                let base = values.as_ptr().add(offset);
                *to = planned::<STRIDE>(base, plan, entry + vector);
            }
            transpose(&mut square);
            for (number, values) in square.into_iter().enumerate() {
                _mm512_store_ps(panel.add((vector * LANES + number) * stride), values);
            }
        }
    }
}

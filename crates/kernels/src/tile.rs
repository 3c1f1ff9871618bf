//! Tiles of a matrix product in registers. The only module with AVX-512 arithmetic.
//!
//! A tile has [`ROWS`] rows of up to [`VECTORS`] vectors: 24 sums in the 32 registers. Each step of
//! the depth loads the vectors of the right operand once and multiplies them by one value of each
//! row of the left operand.

use std::arch::x86_64::{
    __m512, _MM_HINT_ET0, _MM_HINT_T0, _mm_prefetch, _mm512_add_ps, _mm512_castpd_ps,
    _mm512_castps_pd, _mm512_fmadd_ps, _mm512_load_ps, _mm512_mask_loadu_ps, _mm512_mask_mov_ps,
    _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_permutex2var_ps, _mm512_set1_ps,
    _mm512_setr_epi32, _mm512_setzero_ps, _mm512_shuffle_f32x4, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps, _pdep_u32,
};

/// Rows of a tile.
pub(crate) const ROWS: usize = 8;
/// Values of a vector.
pub(crate) const LANES: usize = 16;
/// Maximum number of vectors of a tile's row.
pub(crate) const VECTORS: usize = 3;

/// Some lanes of a vector in memory: lane `i` is at `offset + i·stride` if bit `i` of `mask` is
/// set. The offset of lane 0 may lie outside the slice if that bit is not set.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LaneRun {
    pub mask: u16,
    pub offset: i32,
}

/// Eight rows of the left operand.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// Rows at a distance `stride`, whose depth consists of `pieces` (offset, length).
    Rows {
        values: *const f32,
        stride: usize,
        pieces: &'a [(usize, usize)],
    },
    /// Row r at depth (i, t) is at `r·stride + i·step + taps[t]`, for i below `count`.
    Spread {
        values: *const f32,
        stride: usize,
        step: usize,
        count: usize,
        taps: &'a [usize],
    },
}

/// Where a tile is written.
pub(crate) struct Target<'a> {
    pub values: *mut f32,
    /// Distance of rows.
    pub stride: usize,
    /// Number of rows, 1 to [`ROWS`].
    pub rows: usize,
    /// Added to each row.
    pub bias: [f32; ROWS],
    /// Whether the tile is added to the values.
    pub accumulate: bool,
    /// Position of each vector.
    pub vectors: [&'a [LaneRun]; VECTORS],
}

/// Sums of a tile of `V` vectors.
type Sums<const V: usize> = [[__m512; V]; ROWS];

/// Multiplies `left` by `right` `[depth, vectors·LANES]` and writes the tile.
///
/// # Safety
///
/// The processor has AVX-512F. `right` is aligned to 64 bytes and has the depth of `left` with
/// `vectors` vectors, 1 to [`VECTORS`]. All values that `left` and `to` describe are valid, and no
/// other thread uses those of `to`.
#[target_feature(enable = "avx512f,avx512dq,bmi2")]
#[allow(unsafe_code)]
pub(crate) unsafe fn multiply(left: Left<'_>, right: *const f32, vectors: usize, to: &Target<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        match vectors {
            1 => multiply_vectors::<1>(left, right, to),
            2 => multiply_vectors::<2>(left, right, to),
            _ => multiply_vectors::<3>(left, right, to),
        }
    }
}

/// # Safety
///
/// Like [`multiply`], with `V` vectors.
#[target_feature(enable = "avx512f,avx512dq,bmi2")]
#[allow(unsafe_code)]
unsafe fn multiply_vectors<const V: usize>(left: Left<'_>, right: *const f32, to: &Target<'_>) {
    let mut sums: Sums<V> = [[_mm512_setzero_ps(); V]; ROWS];
    for (sums, bias) in sums.iter_mut().zip(to.bias) {
        *sums = [_mm512_set1_ps(bias); V];
    }
    prefetch::<V>(to);
    // SAFETY: the caller's promise.
    unsafe {
        match left {
            Left::Rows {
                values,
                stride,
                pieces,
            } => {
                let mut right = right;
                for &(offset, length) in pieces {
                    let values = values.add(offset);
                    let rows = std::array::from_fn(|row| values.add(row.min(to.rows - 1) * stride));
                    add_rows::<V>(&mut sums, (rows, ROWS * stride), right, length);
                    right = right.add(length * V * LANES);
                }
            }
            Left::Spread {
                values,
                stride,
                step,
                count,
                taps,
            } => {
                let mut right = right;
                for number in 0..count {
                    for &tap in taps {
                        let values = values.add(number * step + tap);
                        let values = std::array::from_fn(|row| values.add(row * stride));
                        add_step::<V>(&mut sums, values, right);
                        right = right.add(V * LANES);
                    }
                }
            }
        }
        store::<V>(&sums, to);
    }
}

/// Fetches the cache lines that the tile is going to write.
#[inline]
#[target_feature(enable = "avx512f")]
fn prefetch<const V: usize>(to: &Target<'_>) {
    for run in to.vectors[..V].iter().copied().flatten() {
        let first = run.offset as isize + run.mask.trailing_zeros() as isize;
        let values = to.values.wrapping_offset(first);
        for row in 0..to.rows {
            _mm_prefetch::<_MM_HINT_ET0>(values.wrapping_add(row * to.stride).cast());
        }
    }
}

/// Adds the products of one step of the depth.
///
/// # Safety
///
/// All pointers are valid; `right` is aligned and has `V` vectors.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
unsafe fn add_step<const V: usize>(
    sums: &mut Sums<V>,
    left: [*const f32; ROWS],
    right: *const f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut vectors = [_mm512_setzero_ps(); V];
        for (number, vector) in vectors.iter_mut().enumerate() {
            *vector = _mm512_load_ps(right.add(number * LANES));
        }
        for (sums, left) in sums.iter_mut().zip(left) {
            let left = _mm512_set1_ps(*left);
            for (sum, vector) in sums.iter_mut().zip(vectors) {
                *sum = _mm512_fmadd_ps(left, vector, *sum);
            }
        }
    }
}

/// Adds the products of `length` steps; fetches the same columns of the rows that follow at a
/// distance `next`.
///
/// # Safety
///
/// Each of `rows` has `length` values; `right` is aligned and has `length·V` vectors.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
unsafe fn add_rows<const V: usize>(
    sums: &mut Sums<V>,
    (rows, next): ([*const f32; ROWS], usize),
    mut right: *const f32,
    length: usize,
) {
    let mut at = 0;
    while at < length {
        for row in rows {
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(at + next).cast());
        }
        let end = (at + LANES).min(length);
        while at < end {
            // SAFETY: the caller's promise.
            unsafe {
                add_step::<V>(sums, rows.map(|row| row.add(at)), right);
                right = right.add(V * LANES);
            }
            at += 1;
        }
    }
}

/// # Safety
///
/// All values of `to` are valid, and no other thread uses them.
#[inline]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
unsafe fn store<const V: usize>(sums: &Sums<V>, to: &Target<'_>) {
    for (vector, runs) in to.vectors[..V].iter().enumerate() {
        for run in *runs {
            let values = to.values.wrapping_offset(run.offset as isize);
            for (row, sums) in sums.iter().enumerate() {
                if row < to.rows {
                    let values = values.wrapping_add(row * to.stride);
                    let mut sum = sums[vector];
                    // SAFETY: the lanes of the mask are valid by the caller's promise; the
                    // instructions do not access others.
                    unsafe {
                        if to.accumulate {
                            sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(run.mask, values));
                        }
                        _mm512_mask_storeu_ps(values, run.mask, sum);
                    }
                }
            }
        }
    }
}

/// Loads the lanes of `run`, at distances of `STRIDE` (1 or 2) values, into `vector`.
///
/// # Safety
///
/// The lanes of the mask are valid at `base`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,bmi2")]
#[allow(unsafe_code)]
pub(crate) unsafe fn load<const STRIDE: usize>(
    vector: __m512,
    base: *const f32,
    run: LaneRun,
) -> __m512 {
    let values = base.wrapping_offset(run.offset as isize);
    // SAFETY: the lanes of the mask are valid by the caller's promise; the instructions do not
    // access others.
    unsafe {
        if STRIDE == 1 {
            return _mm512_mask_loadu_ps(vector, run.mask, values);
        }
        let mask = _pdep_u32(u32::from(run.mask), 0x5555_5555);
        let low = _mm512_maskz_loadu_ps(mask as u16, values);
        let high = _mm512_maskz_loadu_ps((mask >> 16) as u16, values.wrapping_add(LANES));
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        _mm512_mask_mov_ps(vector, run.mask, _mm512_permutex2var_ps(low, even, high))
    }
}

/// Returns the mask of the first `count` lanes.
pub(crate) fn lane_mask(count: usize) -> u16 {
    ((1u32 << count.min(LANES)) - 1) as u16
}

/// Transposes a square of 16×16 values.
#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
pub(crate) fn transpose(rows: &mut [__m512; LANES]) {
    let mut pairs = *rows;
    for (to, from) in pairs.chunks_exact_mut(2).zip(rows.chunks_exact(2)) {
        to[0] = _mm512_unpacklo_ps(from[0], from[1]);
        to[1] = _mm512_unpackhi_ps(from[0], from[1]);
    }
    // The quarter q of fours[4i + j] is column 4q + j of rows 4i to 4i + 3.
    let mut fours = pairs;
    for (to, from) in fours.chunks_exact_mut(4).zip(pairs.chunks_exact(4)) {
        let from = [0, 1, 2, 3].map(|row: usize| _mm512_castps_pd(from[row]));
        to[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(from[0], from[2]));
        to[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(from[0], from[2]));
        to[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(from[1], from[3]));
        to[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(from[1], from[3]));
    }
    for j in 0..4 {
        // Quarters 0 and 2, or 1 and 3, of two groups of four rows.
        let even = |i: usize| _mm512_shuffle_f32x4::<0x88>(fours[i + j], fours[i + 4 + j]);
        let odd = |i: usize| _mm512_shuffle_f32x4::<0xdd>(fours[i + j], fours[i + 4 + j]);
        let (upper, lower) = (even(0), even(8));
        rows[j] = _mm512_shuffle_f32x4::<0x88>(upper, lower);
        rows[8 + j] = _mm512_shuffle_f32x4::<0xdd>(upper, lower);
        let (upper, lower) = (odd(0), odd(8));
        rows[4 + j] = _mm512_shuffle_f32x4::<0x88>(upper, lower);
        rows[12 + j] = _mm512_shuffle_f32x4::<0xdd>(upper, lower);
    }
}

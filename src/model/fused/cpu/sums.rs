//! Precise, fast and deterministic sums.

/// Number of parallel partial sums.
const LANES: usize = 16;

/// Returns the sum of `f(a, b)` over both slices, which must have the same length.
#[inline]
pub(super) fn sum_by(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (chunks, tail) = a.as_chunks::<LANES>();
    let (other_chunks, other_tail) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in chunks.iter().zip(other_chunks) {
        for lane in 0..LANES {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = tail.iter().zip(other_tail).map(|(a, b)| f(*a, *b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// Returns the sum of a slice.
pub(super) fn sum(values: &[f32]) -> f32 {
    sum_by(values, values, |value, _| value)
}

//! Sums that are precise, fast, and the same every time.

/// Values that are added side by side.
const LANES: usize = 16;

/// The sum of `f(a, b)` over both slices, which are equally long.
#[inline]
pub(super) fn sum_by(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let (heads, tail) = a.as_chunks::<LANES>();
    let (others, other_tail) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in heads.iter().zip(others) {
        for lane in 0..LANES {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f32 = tail.iter().zip(other_tail).map(|(a, b)| f(*a, *b)).sum();
    sums.iter().sum::<f32>() + rest
}

/// The sum of a slice.
pub(super) fn sum(values: &[f32]) -> f32 {
    sum_by(values, values, |value, _| value)
}

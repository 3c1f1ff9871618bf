//! ReLU on slices.

use rayon::prelude::*;

/// Number of values that one thread processes at a time.
const CHUNK: usize = 64 * 1024;

/// Sets `values` to `max(0, x)` of `source`, or else of `values`.
pub(super) fn relu(values: &mut [f32], source: Option<&[f32]>) {
    in_chunks(values, source, |values, _| {
        for value in values {
            *value = value.max(0.0);
        }
    });
}

/// Sets `values` to the gradient `source`, or else `values`, where [`relu`]'s `output` is positive,
/// and to 0 elsewhere.
pub(super) fn relu_gradient(values: &mut [f32], source: Option<&[f32]>, output: &[f32]) {
    in_chunks(values, source, |values, start| {
        for (value, output) in values.iter_mut().zip(&output[start..]) {
            *value = if *output > 0.0 { *value } else { 0.0 };
        }
    });
}

/// Copies `source`, if present, to `values` and calls `change` on each chunk and its start index.
fn in_chunks(
    values: &mut [f32],
    source: Option<&[f32]>,
    change: impl Fn(&mut [f32], usize) + Sync,
) {
    values
        .par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(number, values)| {
            let start = number * CHUNK;
            if let Some(source) = source {
                values.copy_from_slice(&source[start..][..values.len()]);
            }
            change(values, start);
        });
}

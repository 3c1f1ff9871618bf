//! ReLU on slices.

use rayon::prelude::*;

/// Values that one thread works on at a time.
const CHUNK: usize = 64 * 1024;

/// `max(0, x)` of `source`, else of what `values` hold.
pub(super) fn relu(values: &mut [f32], source: Option<&[f32]>) {
    in_chunks(values, source, |values, _| {
        for value in values {
            *value = value.max(0.0);
        }
    });
}

/// The gradient `source`, else `values`, where [`relu`]'s `output` is positive, and 0 elsewhere.
pub(super) fn relu_gradient(values: &mut [f32], source: Option<&[f32]>, output: &[f32]) {
    in_chunks(values, source, |values, start| {
        for (value, output) in values.iter_mut().zip(&output[start..]) {
            *value = if *output > 0.0 { *value } else { 0.0 };
        }
    });
}

/// Copies `source` to `values`, if there is one, and changes them, given where the chunk begins.
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

//! Matrix products on slices; the only module that passes raw pointers to `gemm`.

use std::ops::Range;

use gemm::{Parallelism, gemm};

/// A strided matrix: element (i, j) is `values[i·strides[0] + j·strides[1]]`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub values: &'a [f32],
    pub shape: [usize; 2],
    pub strides: [usize; 2],
}

/// A mutable matrix with contiguous rows; consecutive rows are `stride` values apart.
pub(super) struct MatrixMut<'a> {
    pub values: &'a mut [f32],
    pub shape: [usize; 2],
    pub stride: usize,
}

impl<'a> Matrix<'a> {
    /// Creates a row-major matrix without padding.
    pub(super) fn rows(values: &'a [f32], shape: [usize; 2]) -> Self {
        let strides = [shape[1], 1];
        Self {
            values,
            shape,
            strides,
        }
    }

    /// Returns the submatrix of these rows and columns.
    pub(super) fn block(self, rows: Range<usize>, columns: Range<usize>) -> Self {
        let start = rows.start * self.strides[0] + columns.start * self.strides[1];
        Self {
            values: &self.values[start..],
            shape: [rows.len(), columns.len()],
            ..self
        }
    }

    pub(super) fn transposed(self) -> Self {
        let ([rows, columns], [down, right]) = (self.shape, self.strides);
        Self {
            shape: [columns, rows],
            strides: [right, down],
            ..self
        }
    }
}

/// Returns whether the last element of a matrix lies within `length` values.
fn fits(length: usize, shape: [usize; 2], strides: [usize; 2]) -> bool {
    let last_offset = |axis: usize| (shape[axis] - 1).checked_mul(strides[axis]);
    let last = last_offset(0).and_then(|down| down.checked_add(last_offset(1)?));
    last.is_some_and(|last| last < length)
}

/// Computes `out ← a·b`, or `out ← out + a·b` if `accumulate`, on the current thread.
///
/// # Panics
///
/// If the shapes do not match or a matrix exceeds its slice.
#[allow(unsafe_code)]
pub(super) fn multiply(out: MatrixMut<'_>, a: Matrix<'_>, b: Matrix<'_>, accumulate: bool) {
    let MatrixMut {
        values,
        shape: [rows, columns],
        stride,
    } = out;
    let depth = a.shape[1];
    assert!(
        a.shape[0] == rows && b.shape == [depth, columns],
        "{:?} × {:?} is not [{rows}, {columns}]",
        a.shape,
        b.shape
    );
    if rows == 0 || columns == 0 || depth == 0 {
        if !accumulate {
            values.fill(0.0);
        }
        return;
    }
    assert!(
        columns <= stride
            && fits(values.len(), [rows, columns], [stride, 1])
            && fits(a.values.len(), a.shape, a.strides)
            && fits(b.values.len(), b.shape, b.strides),
        "a matrix exceeds its slice"
    );
    // SAFETY: the shapes match, and the assertion ensures that every element addressed by shapes
    // and strides lies in its slice. The strides are positive and fit in isize, like slice lengths.
    // `out` is borrowed mutably, so it overlaps neither operand. No two of its elements coincide,
    // because a row is not longer than the row stride.
    unsafe {
        gemm(
            rows,
            columns,
            depth,
            values.as_mut_ptr(),
            1,
            stride as isize,
            accumulate,
            a.values.as_ptr(),
            a.strides[1] as isize,
            a.strides[0] as isize,
            b.values.as_ptr(),
            b.strides[1] as isize,
            b.strides[0] as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

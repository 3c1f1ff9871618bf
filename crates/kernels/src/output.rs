//! Output that tasks write in parallel.

use std::marker::PhantomData;

use crate::tile::{LANES, LaneRun};

/// A mutable slice whose parts are written by different tasks.
#[derive(Clone, Copy)]
pub(crate) struct SharedOutput<'a> {
    values: *mut f32,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: the slice is borrowed mutably for `'a`, and tasks write disjoint parts: see the users of
// `pointer`.
#[allow(unsafe_code)]
unsafe impl Send for SharedOutput<'_> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for SharedOutput<'_> {}

impl<'a> SharedOutput<'a> {
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        Self {
            values: values.as_mut_ptr(),
            borrowed: PhantomData,
        }
    }

    pub(crate) fn pointer(self) -> *mut f32 {
        self.values
    }
}

/// How columns of a product are stored in `[batch, channels, plane]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placement {
    pub channels: usize,
    /// Number of values of a channel of a sample.
    pub plane: usize,
    /// Width of the plane.
    pub width: usize,
    /// Distance of neighbouring columns and rows of the grid in the plane; 1 or 2.
    pub step: usize,
    /// Position of the grid's first column in the plane.
    pub start: usize,
}

impl Placement {
    /// Returns the offset of a column's value in channel 0.
    pub(crate) fn offset(&self, column: usize, [height, width]: [usize; 2]) -> usize {
        let (sample, position) = (column / (height * width), column % (height * width));
        let (y, x) = (position / width, position % width);
        let sample = sample * self.channels * self.plane;
        sample + self.start + (y * self.width + x) * self.step
    }

    /// Adds the runs of the vector with columns `first..end` of a grid of `plane` positions that is
    /// stored without gaps.
    pub(crate) fn runs(&self, first: usize, end: usize, plane: usize, runs: &mut Vec<LaneRun>) {
        let mut lane = 0;
        while first + lane < end && lane < LANES {
            let (sample, position) = ((first + lane) / plane, (first + lane) % plane);
            let length = (plane - position).min(end - first - lane).min(LANES - lane);
            let offset = (sample * self.channels * self.plane + position) as isize - lane as isize;
            runs.push(LaneRun {
                mask: (((1u32 << length) - 1) << lane) as u16,
                offset: offset as i32,
            });
            lane += length;
        }
    }
}

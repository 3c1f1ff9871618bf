//! Where the values of unfolded columns lie in a tensor.

use std::ops::Range;

use crate::ConvolutionShape;
use crate::tile::{LANES, LaneRun};

/// Unfolding of a tensor `[batch, channels, size]`: column p, a position of a grid of a sample,
/// has one value for each channel and tap.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub batch: usize,
    pub channels: usize,
    /// Height and width of the tensor.
    pub size: [usize; 2],
    /// Rows and columns of the grid.
    pub grid: [usize; 2],
    pub stride: usize,
    /// Position (y, x) reads (y·stride + tap\[0\], x·stride + tap\[1\]); outside are zeros.
    pub taps: Vec<[isize; 2]>,
}

impl Window {
    /// Returns the window whose product with the filters is the convolution.
    pub(crate) fn of(shape: &ConvolutionShape) -> Self {
        let [down, right] = shape.kernel;
        let tap = |number: usize, axis: usize| number as isize - shape.pad[axis] as isize;
        let row = |y: usize| (0..right).map(move |x| [tap(y, 0), tap(x, 1)]);
        Self {
            batch: shape.batch,
            channels: shape.inputs,
            size: shape.input_size,
            grid: shape.output_size,
            stride: shape.stride[0],
            taps: (0..down).flat_map(row).collect(),
        }
        .flattened()
    }

    /// Returns the window that reads `[batch, channels, plane]` as it is.
    pub(crate) fn identity(batch: usize, channels: usize, plane: usize) -> Self {
        Self {
            batch,
            channels,
            size: [1, plane],
            grid: [1, plane],
            stride: 1,
            taps: vec![[0, 0]],
        }
    }

    /// Joins the rows if each position reads only the same position of the tensor.
    pub(crate) fn flattened(self) -> Self {
        if self.taps == [[0, 0]] && self.stride == 1 && self.grid == self.size {
            return Self::identity(self.batch, self.channels, self.plane());
        }
        self
    }

    /// Returns whether the window reads the tensor as it is.
    pub(crate) fn is_identity(&self) -> bool {
        self.grid[0] == 1 && self.grid == self.size && self.stride == 1 && self.taps == [[0, 0]]
    }

    /// Number of positions of the grid.
    pub(crate) fn plane(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    pub(crate) fn source_plane(&self) -> usize {
        self.size[0] * self.size[1]
    }

    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.batch * self.plane()
    }
}

/// A part of a row of the grid.
#[derive(Debug, Clone, Copy)]
struct RowPart {
    /// Columns of the plan.
    lanes: (usize, usize),
    /// Offset of the sample.
    sample: isize,
    /// Row of the tensor for tap row 0.
    y: isize,
    /// Grid column of lane 0 of the plan.
    x: isize,
}

/// The runs of each tap and vector.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    rows: Vec<RowPart>,
    /// First run of each tap and vector; an empty one if there is none.
    pub first: Vec<LaneRun>,
    /// Range of further runs of each tap and vector, by its start.
    pub starts: Vec<u32>,
    /// Further runs.
    pub more: Vec<LaneRun>,
}

impl Plan {
    /// Plans `columns` as vectors.
    pub(crate) fn build(&mut self, window: &Window, columns: &Range<usize>) {
        self.divide(window, columns);
        self.first.clear();
        self.starts.clear();
        self.more.clear();
        for tap in &window.taps {
            let mut next = 0;
            for vector in 0..columns.len().div_ceil(LANES) {
                self.starts.push(self.more.len() as u32);
                self.first.push(LaneRun::default());
                let begin = vector * LANES;
                let mut index = next;
                while let Some(&row) = self.rows.get(index)
                    && row.lanes.0 < begin + LANES
                {
                    index += 1;
                    if row.lanes.1 <= begin + LANES {
                        next = index;
                    }
                    if let Some(run) = row.run(window, *tap, begin) {
                        self.add(run);
                    }
                }
            }
        }
        self.starts.push(self.more.len() as u32);
    }

    /// Divides the columns into rows of the grid.
    fn divide(&mut self, window: &Window, columns: &Range<usize>) {
        self.rows.clear();
        let [height, width] = window.grid;
        let sample_len = window.channels * window.source_plane();
        let mut sample = columns.start / window.plane();
        let mut y = columns.start % window.plane() / width;
        let mut x = columns.start % width;
        let mut lane = 0;
        while lane < columns.len() {
            let end = (lane + width - x).min(columns.len());
            self.rows.push(RowPart {
                lanes: (lane, end),
                sample: (sample * sample_len) as isize,
                y: (y * window.stride) as isize,
                x: x as isize - lane as isize,
            });
            (lane, x, y) = (end, 0, y + 1);
            if y == height {
                (y, sample) = (0, sample + 1);
            }
        }
    }

    /// Adds a run to the last vector.
    fn add(&mut self, run: LaneRun) {
        let start = self.starts.last().map_or(0, |start| *start as usize);
        let last = if self.more.len() > start {
            self.more.last_mut()
        } else {
            self.first.last_mut()
        };
        if let Some(last) = last {
            if last.mask == 0 {
                *last = run;
            } else if last.offset == run.offset {
                last.mask |= run.mask;
            } else {
                self.more.push(run);
            }
        }
    }
}

impl RowPart {
    /// Returns the run of the vector at lane `begin`.
    fn run(self, window: &Window, tap: [isize; 2], begin: usize) -> Option<LaneRun> {
        let stride = window.stride as isize;
        let [height, width] = window.size.map(|size| size as isize);
        let y = self.y + tap[0];
        if !(0..height).contains(&y) {
            return None;
        }
        // Lanes whose column (x + lane)·stride + tap is inside the tensor.
        let lane = |column: isize| (column - tap[1] + stride - 1).div_euclid(stride) - self.x;
        let low = lane(0).max(self.lanes.0 as isize).max(begin as isize);
        let high = lane(width)
            .min(self.lanes.1 as isize)
            .min((begin + LANES) as isize);
        if low >= high {
            return None;
        }
        let column = (self.x + begin as isize) * stride + tap[1];
        Some(LaneRun {
            mask: (((1u32 << (high - low)) - 1) << (low - begin as isize)) as u16,
            offset: (self.sample + y * width + column) as i32,
        })
    }
}

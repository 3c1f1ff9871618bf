//! Shape of a convolution and how it is cut into pieces.

use std::ops::Range;

use burn::tensor::ops::ConvOptions;

/// Columns below which the samples' matrices are too narrow for a product of their own.
const NARROW: usize = 128;
/// Columns that narrow samples are joined to.
const JOINED: usize = 256;
/// Values of an im2col panel: half of a second-level cache of 512 kB, the other half is gemm's.
const PANEL: usize = 64 * 1024;

/// A convolution of `[batch, inputs, height, width]` without groups and dilation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Geometry {
    pub batch: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Height and width of the input.
    pub from: [usize; 2],
    /// Height and width of the output.
    pub to: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Zeros above and to the left of the input.
    pub pad: [usize; 2],
}

/// Output positions of a panel: rows `rows` of each of `samples`.
#[derive(Debug, Clone)]
pub(super) struct Tile {
    pub samples: Range<usize>,
    pub rows: Range<usize>,
}

impl Geometry {
    /// The convolution of an input by filters `[outputs, inputs, kernel…]`; none where it is of
    /// another kind or has no output.
    pub(super) fn new(
        input: [usize; 4],
        filters: [usize; 4],
        options: &ConvOptions<2>,
    ) -> Option<Self> {
        let [batch, inputs, height, width] = input;
        let [outputs, _, down, right] = filters;
        let mut to = [height, width];
        for axis in 0..2 {
            let (before, after) = options.padding[axis];
            let room = (to[axis] + before + after).checked_sub(filters[axis + 2])?;
            to[axis] = room / options.stride[axis] + 1;
        }
        let plain = options.groups == 1 && options.dilation == [1, 1] && filters[1] == inputs;
        let geometry = Self {
            batch,
            inputs,
            outputs,
            from: [height, width],
            to,
            kernel: [down, right],
            stride: options.stride,
            pad: [options.padding[0].0, options.padding[1].0],
        };
        let some = geometry.input_len() > 0 && geometry.filters_len() > 0;
        (plain && some).then_some(geometry)
    }

    /// The convolution of the output's gradient that gives the input's: the filters turned around
    /// and their channels exchanged. Only for stride 1, and no wider a padding than the kernel.
    pub(super) fn reversed(&self) -> Option<Self> {
        let pad = |axis: usize| (self.kernel[axis] - 1).checked_sub(self.pad[axis]);
        let pad = [pad(0)?, pad(1)?];
        (self.stride == [1, 1]).then_some(Self {
            inputs: self.outputs,
            outputs: self.inputs,
            from: self.to,
            to: self.from,
            pad,
            ..*self
        })
    }

    pub(super) fn input_len(&self) -> usize {
        self.batch * self.inputs * self.input_plane()
    }

    pub(super) fn output_len(&self) -> usize {
        self.batch * self.outputs * self.output_plane()
    }

    pub(super) fn filters_len(&self) -> usize {
        self.outputs * self.inputs * self.taps()
    }

    pub(super) fn input_plane(&self) -> usize {
        self.from[0] * self.from[1]
    }

    pub(super) fn output_plane(&self) -> usize {
        self.to[0] * self.to[1]
    }

    /// Weights of a filter for one input channel.
    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Whether each output is a combination of the inputs at the same place.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.pad == [0, 0] && self.from == self.to
    }

    /// Samples whose output is computed as one matrix.
    pub(super) fn joined(&self) -> usize {
        let plane = self.output_plane();
        if plane >= NARROW {
            return 1;
        }
        even_share(self.batch, (JOINED / plane).max(1))
    }

    /// Output rows of a sample that a panel covers: all if samples are joined, else few enough for
    /// a panel of 64 channels.
    pub(super) fn panel_rows(&self) -> usize {
        let columns = PANEL / (self.inputs.min(64) * self.taps());
        let few = (columns.max(NARROW) / self.to[1]).clamp(1, self.to[0]);
        even_share(self.to[0], few)
    }

    /// Input channels of a panel with `columns` columns.
    pub(super) fn panel_channels(&self, columns: usize) -> usize {
        (PANEL / (columns * self.taps())).clamp(1, self.inputs)
    }

    /// As [`panel_rows`](Self::panel_rows), for panels of the filters' gradient `width` wide.
    pub(super) fn gradient_rows(&self, width: usize) -> usize {
        let few = (PANEL / width / self.to[1]).clamp(1, self.to[0]);
        even_share(self.to[0], few)
    }
}

/// Size of the shares of at most `most` that `total` is cut into, all as large as can be: a short
/// last one is slow.
pub(super) fn even_share(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most))
}

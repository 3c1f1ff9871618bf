//! The shape of a convolution and its division into panels.

use std::ops::Range;

use burn::tensor::ops::ConvOptions;

/// Number of columns below which a sample's matrix is too narrow for an efficient product.
const NARROW: usize = 128;
/// Target number of columns when narrow samples are joined.
const JOINED: usize = 256;
/// Number of values of an im2col panel: half of a second-level cache of 512 kB; `gemm` uses the
/// other half.
const PANEL: usize = 64 * 1024;

/// A convolution of `[batch, inputs, height, width]` without groups and dilation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Geometry {
    pub batch: usize,
    /// Number of input channels.
    pub inputs: usize,
    /// Number of output channels.
    pub outputs: usize,
    /// Height and width of the input.
    pub input_size: [usize; 2],
    /// Height and width of the output.
    pub output_size: [usize; 2],
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    /// Padding above and to the left of the input.
    pub pad: [usize; 2],
}

/// The output positions of a panel: rows `rows` of each of `samples`.
#[derive(Debug, Clone)]
pub(super) struct OutputTile {
    pub samples: Range<usize>,
    pub rows: Range<usize>,
}

impl Geometry {
    /// Creates the geometry of an input and filters `[outputs, inputs, kernel…]`. Returns `None`
    /// for groups, dilation, or an empty input, filter or output.
    pub(super) fn new(
        input: [usize; 4],
        filters: [usize; 4],
        options: &ConvOptions<2>,
    ) -> Option<Self> {
        let [batch, inputs, height, width] = input;
        let [outputs, _, down, right] = filters;
        let mut output_size = [height, width];
        for axis in 0..2 {
            let (before, after) = options.padding[axis];
            let room = (output_size[axis] + before + after).checked_sub(filters[axis + 2])?;
            output_size[axis] = room / options.stride[axis] + 1;
        }
        let supported = options.groups == 1 && options.dilation == [1, 1] && filters[1] == inputs;
        let geometry = Self {
            batch,
            inputs,
            outputs,
            input_size: [height, width],
            output_size,
            kernel: [down, right],
            stride: options.stride,
            pad: [options.padding[0].0, options.padding[1].0],
        };
        let is_not_empty = geometry.input_len() > 0 && geometry.filters_len() > 0;
        (supported && is_not_empty).then_some(geometry)
    }

    /// Returns the convolution that maps the output's gradient to the input's, with flipped filters
    /// and exchanged channels. `None` unless the stride is 1 and the padding is less than the
    /// kernel.
    pub(super) fn reversed(&self) -> Option<Self> {
        let pad = |axis: usize| (self.kernel[axis] - 1).checked_sub(self.pad[axis]);
        let pad = [pad(0)?, pad(1)?];
        (self.stride == [1, 1]).then_some(Self {
            inputs: self.outputs,
            outputs: self.inputs,
            input_size: self.output_size,
            output_size: self.input_size,
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
        self.input_size[0] * self.input_size[1]
    }

    pub(super) fn output_plane(&self) -> usize {
        self.output_size[0] * self.output_size[1]
    }

    /// Number of kernel positions.
    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Returns whether each output depends only on the inputs at the same position.
    pub(super) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1]
            && self.stride == [1, 1]
            && self.pad == [0, 0]
            && self.input_size == self.output_size
    }

    /// Number of samples whose outputs are computed as one matrix.
    pub(super) fn joined(&self) -> usize {
        let plane = self.output_plane();
        if plane >= NARROW {
            return 1;
        }
        even_share(self.batch, (JOINED / plane).max(1))
    }

    /// Number of output rows of a sample that a panel covers, such that 64 channels fit the panel.
    /// Joined samples are covered whole.
    pub(super) fn panel_rows(&self) -> usize {
        let columns = PANEL / (self.inputs.min(64) * self.taps());
        let rows = (columns.max(NARROW) / self.output_size[1]).clamp(1, self.output_size[0]);
        even_share(self.output_size[0], rows)
    }

    /// Number of input channels of a panel with `columns` columns.
    pub(super) fn panel_channels(&self, columns: usize) -> usize {
        (PANEL / (columns * self.taps())).clamp(1, self.inputs)
    }

    /// Like [`panel_rows`](Self::panel_rows), for panels of the filters' gradient of width `width`.
    pub(super) fn gradient_rows(&self, width: usize) -> usize {
        let rows = (PANEL / width / self.output_size[1]).clamp(1, self.output_size[0]);
        even_share(self.output_size[0], rows)
    }
}

/// Returns the size of the shares when `total` is divided into the fewest shares of at most `most`.
/// The shares are nearly equal, because a short last share is slow.
pub(super) fn even_share(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most))
}

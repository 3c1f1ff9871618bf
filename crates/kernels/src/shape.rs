//! The shape of a convolution.

/// A convolution of `[batch, inputs, height, width]` without groups and dilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionShape {
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

impl ConvolutionShape {
    /// Returns whether the kernels support the shape: no size is 0, stride 1 or 2 in both
    /// directions, and offsets fit in 32 bits.
    #[must_use]
    pub fn is_supported(&self) -> bool {
        let fits = |length: usize| (1..i32::MAX as usize / 2).contains(&length);
        matches!(self.stride, [1, 1] | [2, 2])
            && fits(self.input_len())
            && fits(self.output_len())
            && fits(self.filters_len())
    }

    pub(crate) fn check(&self, input: usize, filters: usize, output: usize) {
        let expected = [self.input_len(), self.filters_len(), self.output_len()];
        assert!(
            self.is_supported() && [input, filters, output] == expected,
            "slices of {input}, {filters} and {output} values do not fit {self:?}"
        );
    }

    fn input_len(&self) -> usize {
        self.batch * self.inputs * self.input_plane()
    }

    fn output_len(&self) -> usize {
        self.batch * self.outputs * self.output_plane()
    }

    fn filters_len(&self) -> usize {
        self.outputs * self.inputs * self.taps()
    }

    pub(crate) fn input_plane(&self) -> usize {
        self.input_size[0] * self.input_size[1]
    }

    pub(crate) fn output_plane(&self) -> usize {
        self.output_size[0] * self.output_size[1]
    }

    /// Number of kernel positions.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }
}

/// Returns the size of the shares when `total` is divided into the fewest shares of at most `most`.
/// The shares are nearly equal, because a short last share is slow.
#[cfg(target_arch = "x86_64")]
pub(crate) fn even_share(total: usize, most: usize) -> usize {
    total.div_ceil(total.div_ceil(most.max(1)))
}

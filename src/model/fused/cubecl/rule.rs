//! Which kernels compute a convolution on a GPU: a rule of its shape and the device.

use std::ops::Range;

use burn::tensor::ops::ConvOptions;

/// Largest size of an unfolded input in bytes. More samples are unfolded one part after another.
const UNFOLDED: u64 = 256 << 20;
/// Height and width of the tile of a matrix product that one processor computes at a time.
const TILE: usize = 64;
/// Fewest rows of a part of a divided matrix product. Shorter parts cost more than they save.
const PART_ROWS: usize = 256;

/// A convolution of `[batch, inputs, height, width]` without groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ConvShape {
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
    pub dilation: [usize; 2],
}

/// What the rule considers of a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct DeviceTraits {
    /// Whether matrix instructions multiply float32 or TensorFloat-32.
    pub matrix_instructions: bool,
    /// Number of processors that compute tiles independently.
    pub processors: usize,
    /// Largest buffer in bytes.
    pub largest_buffer: u64,
}

/// The result that is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ConvPass {
    Output,
    InputGradient,
    FiltersGradient,
}

/// How a result is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ConvMethod {
    /// A matrix product of positions and channels, without copies.
    Product,
    /// Burn's implicit GEMM: a matrix product that reads the input's windows in place, by matrix
    /// instructions.
    ImplicitGemm,
    /// A copy of the input's windows, and a matrix product.
    Unfolded,
}

impl ConvShape {
    /// Creates the shape from an input and filters `[outputs, inputs, kernel…]`. Returns `None` for
    /// groups, or an empty input, filter or output.
    pub(super) fn new(
        input: [usize; 4],
        filters: [usize; 4],
        options: &ConvOptions<2>,
    ) -> Option<Self> {
        let [batch, inputs, height, width] = input;
        let [outputs, _, down, right] = filters;
        let is_not_empty = input.iter().chain(&filters).all(|size| *size > 0);
        if !is_not_empty || options.groups != 1 || filters[1] != inputs {
            return None;
        }
        let mut output_size = [height, width];
        for axis in 0..2 {
            let (before, after) = options.padding[axis];
            let extent = options.dilation[axis] * (filters[axis + 2] - 1) + 1;
            let room = (output_size[axis] + before + after).checked_sub(extent)?;
            output_size[axis] = room / options.stride[axis] + 1;
        }
        Some(Self {
            batch,
            inputs,
            outputs,
            input_size: [height, width],
            output_size,
            kernel: [down, right],
            stride: options.stride,
            pad: [options.padding[0].0, options.padding[1].0],
            dilation: options.dilation,
        })
    }

    /// Number of kernel positions.
    pub(super) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Number of values in the window of an output.
    pub(super) fn depth(&self) -> usize {
        self.taps() * self.inputs
    }

    /// Number of outputs of a channel of a sample.
    pub(super) fn output_plane(&self) -> usize {
        self.output_size[0] * self.output_size[1]
    }

    /// Returns whether each output depends only on the inputs at the same position.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1]
            && self.stride == [1, 1]
            && self.pad == [0, 0]
            && self.input_size == self.output_size
    }

    /// Returns how to compute a result.
    pub(super) fn method(&self, pass: ConvPass, device: &DeviceTraits) -> ConvMethod {
        if self.is_pointwise() {
            return ConvMethod::Product;
        }
        // The window of a strided 1×1 convolution is one position, so unfolding copies the input at
        // most once.
        let accelerated = device.matrix_instructions && self.taps() > 1;
        let implicit = match pass {
            ConvPass::Output => true,
            // Burn computes a strided one directly.
            ConvPass::InputGradient => self.stride == [1, 1],
            // Burn does not divide the sum over all positions, so few tiles leave processors idle.
            ConvPass::FiltersGradient => tiles(self.outputs, self.depth()) >= device.processors,
        };
        if accelerated && implicit {
            ConvMethod::ImplicitGemm
        } else {
            ConvMethod::Unfolded
        }
    }

    /// Returns the ranges of samples that are unfolded together, nearly equal in size.
    pub(super) fn portions(&self, device: &DeviceTraits) -> Vec<Range<usize>> {
        let limit = UNFOLDED.min(device.largest_buffer);
        let sample = (self.output_plane() * self.depth() * size_of::<f32>()) as u64;
        let most = (limit / sample).clamp(1, self.batch as u64) as usize;
        let size = self.batch.div_ceil(self.batch.div_ceil(most));
        (0..self.batch)
            .step_by(size)
            .map(|start| start..(start + size).min(self.batch))
            .collect()
    }
}

/// Returns the number of tiles of a matrix.
fn tiles(height: usize, width: usize) -> usize {
    height.div_ceil(TILE) * width.div_ceil(TILE)
}

/// Returns the number of equal parts into which to divide a sum over `rows` whose result is a
/// matrix of `size`, so that each processor gets a tile. The parts are added afterwards.
pub(super) fn parts(rows: usize, size: [usize; 2], device: &DeviceTraits) -> usize {
    let idle = (2 * device.processors) / tiles(size[0], size[1]);
    let most = idle.min(rows / PART_ROWS).max(1);
    (1..=most)
        .rev()
        .find(|parts| rows.is_multiple_of(*parts))
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIMPLE: DeviceTraits = DeviceTraits {
        matrix_instructions: false,
        processors: 64,
        largest_buffer: 1 << 40,
    };

    const ACCELERATED: DeviceTraits = DeviceTraits {
        matrix_instructions: true,
        ..SIMPLE
    };

    const PASSES: [ConvPass; 3] = [
        ConvPass::Output,
        ConvPass::InputGradient,
        ConvPass::FiltersGradient,
    ];

    /// A convolution of `[batch, channels, 56, 56]`.
    fn shape(batch: usize, channels: [usize; 2], kernel: usize, stride: usize) -> ConvShape {
        let pad = kernel / 2;
        let options = ConvOptions::new([stride; 2], [pad; 2], [1, 1], 1);
        let [inputs, outputs] = channels;
        let filters = [outputs, inputs, kernel, kernel];
        ConvShape::new([batch, inputs, 56, 56], filters, &options).unwrap()
    }

    #[test]
    fn pointwise_convolutions_are_products_on_any_device() {
        for device in [SIMPLE, ACCELERATED] {
            for pass in PASSES {
                let [plain, strided] =
                    [1, 2].map(|stride| shape(8, [64, 256], 1, stride).method(pass, &device));
                assert_eq!(plain, ConvMethod::Product);
                assert_eq!(strided, ConvMethod::Unfolded);
            }
        }
    }

    #[test]
    fn padded_pointwise_convolutions_are_not_products() {
        let options = ConvOptions::new([2, 2], [1, 1], [1, 1], 1);
        let shape = ConvShape::new([1, 4, 3, 3], [4, 4, 1, 1], &options).unwrap();
        assert_eq!(shape.output_size, [3, 3]);
        assert_eq!(
            shape.method(ConvPass::Output, &SIMPLE),
            ConvMethod::Unfolded
        );
    }

    #[test]
    fn matrix_instructions_select_implicit_gemm() {
        for pass in PASSES {
            let wide = shape(8, [512, 512], 3, 1);
            assert_eq!(wide.method(pass, &SIMPLE), ConvMethod::Unfolded);
            assert_eq!(wide.method(pass, &ACCELERATED), ConvMethod::ImplicitGemm);
        }
    }

    #[test]
    fn strided_input_gradients_are_unfolded() {
        let strided = shape(8, [512, 512], 3, 2);
        let methods = PASSES.map(|pass| strided.method(pass, &ACCELERATED));
        let expected = [
            ConvMethod::ImplicitGemm,
            ConvMethod::Unfolded,
            ConvMethod::ImplicitGemm,
        ];
        assert_eq!(methods, expected);
    }

    #[test]
    fn filters_gradients_with_few_tiles_are_unfolded_and_divided() {
        let narrow = shape(8, [64, 64], 3, 1);
        let method = narrow.method(ConvPass::FiltersGradient, &ACCELERATED);
        assert_eq!(method, ConvMethod::Unfolded);
        let rows = 8 * 56 * 56;
        // 9 tiles for 64 processors; 14 is the largest divisor of the rows up to 128 / 9.
        assert_eq!(parts(rows, [64, 9 * 64], &ACCELERATED), 14);
        // Enough tiles.
        assert_eq!(parts(rows, [512, 9 * 512], &ACCELERATED), 1);
        // Too short to divide; no divisor.
        assert_eq!(parts(300, [64, 64], &ACCELERATED), 1);
        assert_eq!(parts(8191, [64, 64], &ACCELERATED), 1);
    }

    #[test]
    fn portions_cover_the_batch_within_the_limit() {
        let layer = shape(32, [64, 64], 3, 1);
        let sample = (56 * 56 * 9 * 64 * 4) as u64;
        let buffers = [
            (1, 32),
            (sample, 32),
            (5 * sample, 7),
            (31 * sample, 2),
            (1 << 40, 1),
        ];
        for (largest_buffer, count) in buffers {
            let device = DeviceTraits {
                largest_buffer,
                ..SIMPLE
            };
            let portions = layer.portions(&device);
            assert_eq!(portions.len(), count, "{largest_buffer}");
            let samples: Vec<usize> = portions.iter().cloned().flatten().collect();
            assert!(samples.into_iter().eq(0..32));
            let longest = portions.iter().map(Range::len).max().unwrap();
            assert!(longest == 1 || longest as u64 * sample <= largest_buffer);
        }
    }

    #[test]
    fn groups_and_empty_tensors_are_not_supported() {
        let plain = ConvOptions::new([1, 1], [0, 0], [1, 1], 1);
        let groups = ConvOptions::new([1, 1], [0, 0], [1, 1], 2);
        let input = [1, 4, 5, 5];
        assert!(ConvShape::new(input, [2, 4, 3, 3], &plain).is_some());
        assert!(ConvShape::new(input, [2, 2, 3, 3], &groups).is_none());
        assert!(ConvShape::new(input, [2, 4, 6, 3], &plain).is_none());
        assert!(ConvShape::new([0, 4, 5, 5], [2, 4, 3, 3], &plain).is_none());
    }
}

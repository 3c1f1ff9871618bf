//! Resize of 8-bit pixels with `fast_image_resize`, compiled once.
//!
//! The functions of `fast_image_resize` are generic. Each crate that calls them compiles hundreds
//! of vectorized functions, which takes minutes. This crate has functions that are not generic, so
//! a change in `rgby-imaging` or its tests does not compile them again.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// Interpolation of [`Resampler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// Bilinear with antialiasing, as in Pillow and torchvision (`antialias=True`).
    Bilinear,
    /// Nearest neighbour.
    Nearest,
}

/// Resizes images and reuses its memory.
#[derive(Debug, Default)]
pub struct Resampler(Resizer);

impl Resampler {
    /// Resizes an image of one byte per pixel from one width and height to another.
    ///
    /// # Panics
    ///
    /// The length of a slice is not width × height.
    pub fn gray(
        &mut self,
        (source, from): (&[u8], [u32; 2]),
        (target, to): (&mut [u8], [u32; 2]),
        interpolation: Interpolation,
    ) {
        self.resize::<U8>((source, from), (target, to), interpolation);
    }

    /// As [`gray`](Self::gray), for pixels of four interleaved bytes, each a channel of its own.
    ///
    /// # Panics
    ///
    /// The length of a slice is not 4 × width × height.
    pub fn four_channels(
        &mut self,
        (source, from): (&[u8], [u32; 2]),
        (target, to): (&mut [u8], [u32; 2]),
        interpolation: Interpolation,
    ) {
        self.resize::<U8x4>((source, from), (target, to), interpolation);
    }

    fn resize<P: PixelTrait>(
        &mut self,
        (source, from): (&[u8], [u32; 2]),
        (target, to): (&mut [u8], [u32; 2]),
        interpolation: Interpolation,
    ) {
        let algorithm = match interpolation {
            Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
            Interpolation::Nearest => ResizeAlg::Nearest,
        };
        let options = ResizeOptions::new().resize_alg(algorithm).use_alpha(false);
        let source = TypedImageRef::<P>::from_buffer(from[0], from[1], source);
        let target = TypedImage::<P>::from_buffer(to[0], to[1], target);
        let both = source.ok().zip(target.ok());
        let resized = both.map(|(source, mut target)| {
            let resized = self.0.resize_typed(&source, &mut target, &options);
            resized.is_ok()
        });
        assert_eq!(
            resized,
            Some(true),
            "buffers match the sizes and the pixel type"
        );
    }
}

//! Resizing of planes.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::{Planes, skimage};

/// How an image gets another size.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Convolution with a triangle filter. Enlarging, this is bilinear interpolation; shrinking,
    /// the triangle widens with the factor, so that every source pixel counts and fine structure
    /// is averaged instead of aliased (as Pillow's and torchvision's `antialias=True`).
    #[default]
    Bilinear,
    /// The nearest source pixel.
    Nearest,
    /// Bilinear interpolation without antialiasing, and a border that blends with black: what
    /// `skimage.transform.resize` of scikit-image 0.13 did, which the reference experiments used.
    Skimage,
}

/// Stretches each channel to `size`×`size` pixels; a size that already fits is copied. Returns
/// `[channels, size, size]`, 0–255, in whole numbers but for [`Resize::Skimage`].
pub(super) fn resize(planes: &Planes, size: u32, filter: Resize) -> Vec<f32> {
    let floats = |bytes: &[u8]| bytes.iter().copied().map(f32::from).collect();
    let algorithm = match filter {
        _ if planes.width == size && planes.height == size => return floats(&planes.data),
        Resize::Skimage => return skimage::resize(planes, size),
        Resize::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Resize::Nearest => ResizeAlg::Nearest,
    };
    floats(&convolve(planes, size, algorithm))
}

impl Planes {
    /// The planes at `size`×`size` pixels, rounded to whole numbers.
    #[must_use]
    pub fn resized(&self, size: u32, filter: Resize) -> Self {
        let data = resize(self, size, filter);
        Self {
            width: size,
            height: size,
            channels: self.channels,
            data: data.into_iter().map(|value| value.round() as u8).collect(),
        }
    }
}

/// Resizes on whole numbers, which is far faster than on floats.
fn convolve(planes: &Planes, size: u32, algorithm: ResizeAlg) -> Vec<u8> {
    let options = ResizeOptions::new().resize_alg(algorithm);
    let mut resizer = Resizer::new();
    let pixels = (size as usize).pow(2);
    let mut data = vec![0; planes.channels * pixels];
    let sources = planes.data.chunks_exact(planes.plane_len().max(1));
    for (source, target) in sources.zip(data.chunks_exact_mut(pixels.max(1))) {
        let source = ImageRef::new(planes.width, planes.height, source, PixelType::U8);
        let target = Image::from_slice_u8(size, size, target, PixelType::U8);
        let done = source
            .ok()
            .zip(target.ok())
            .map(|(source, mut target)| resizer.resize(&source, &mut target, &options).is_ok());
        assert_eq!(
            done,
            Some(true),
            "buffers of matching size and type always resize"
        );
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planes(width: u32, height: u32, data: Vec<u8>) -> Planes {
        let channels = data.len() / (width * height) as usize;
        Planes {
            width,
            height,
            channels,
            data,
        }
    }

    #[test]
    fn shrinking_bilinearly_averages_where_nearest_picks() {
        let stripes: Vec<u8> = (0..64).map(|i| if i % 2 == 0 { 0 } else { 200 }).collect();
        let source = planes(8, 8, stripes);
        let smooth = resize(&source, 2, Resize::Bilinear);
        assert!(
            smooth.iter().all(|v| (80.0..=120.0).contains(v)),
            "{smooth:?}"
        );
        let picked = resize(&source, 2, Resize::Nearest);
        assert!(
            picked.iter().all(|v| [0.0, 200.0].contains(v)),
            "{picked:?}"
        );
    }

    #[test]
    fn enlarging_follows_the_half_pixel_rule() {
        let source = planes(2, 1, vec![0, 100]);
        // Pixel centres of the target in source coordinates: -0.25, 0.25, 0.75, 1.25.
        let wide = resize(&source, 4, Resize::Bilinear);
        assert_eq!(wide[..4], [0.0, 25.0, 75.0, 100.0]);
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        input: Vec<Vec<u8>>,
        output: Vec<Vec<f32>>,
    }

    /// The golden's maker: `tests/golden/resize.py`.
    #[test]
    fn shrinking_is_that_of_pillow() {
        let text = include_str!("../../tests/golden/resize.json");
        let golden: Golden = serde_json::from_str(text).unwrap();
        let (width, height) = (golden.input[0].len(), golden.input.len());
        let source = planes(width as u32, height as u32, golden.input.concat());
        let found = resize(&source, golden.output.len() as u32, Resize::Bilinear);
        for (found, wanted) in found.iter().zip(golden.output.concat()) {
            assert!((found - wanted).abs() <= 1.0, "{found} for {wanted}");
        }
    }

    #[test]
    fn channels_do_not_mix_and_any_shape_fits() {
        let mut data = vec![10; 15];
        data.extend([200; 15]);
        let resized = resize(&planes(5, 3, data), 4, Resize::Bilinear);
        assert_eq!(resized.len(), 32);
        assert_eq!(resized[..16], [10.0; 16]);
        assert_eq!(resized[16..], [200.0; 16]);
    }
}

//! Resizing of planes.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::Planes;

/// How an image gets another size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Convolution with a triangle filter. Enlarging, this is bilinear interpolation; shrinking,
    /// the triangle widens with the factor, so that every source pixel counts and fine structure
    /// is averaged instead of aliased (as Pillow's and torchvision's `antialias=True`).
    #[default]
    Bilinear,
    /// The nearest source pixel.
    Nearest,
}

/// Stretches each channel to `size`×`size` pixels; a size that already fits is copied.
pub(super) fn resize_planes(planes: &Planes, size: u32, filter: Resize) -> Planes {
    if planes.width == size && planes.height == size {
        return planes.clone();
    }
    let algorithm = match filter {
        Resize::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Resize::Nearest => ResizeAlg::Nearest,
    };
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
    Planes {
        width: size,
        height: size,
        channels: planes.channels,
        data,
    }
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
        let smooth = resize_planes(&source, 2, Resize::Bilinear);
        assert!(
            smooth.data.iter().all(|v| (80..=120).contains(v)),
            "{:?}",
            smooth.data
        );
        let picked = resize_planes(&source, 2, Resize::Nearest);
        assert!(
            picked.data.iter().all(|&v| v == 0 || v == 200),
            "{:?}",
            picked.data
        );
    }

    #[test]
    fn enlarging_follows_the_half_pixel_rule() {
        let source = planes(2, 1, vec![0, 100]);
        // Pixel centres of the target in source coordinates: -0.25, 0.25, 0.75, 1.25.
        let wide = resize_planes(&source, 4, Resize::Bilinear);
        assert_eq!(wide.data[..4], [0, 25, 75, 100]);
    }

    #[test]
    fn channels_do_not_mix_and_any_shape_fits() {
        let mut data = vec![10; 15];
        data.extend([200; 15]);
        let resized = resize_planes(&planes(5, 3, data), 4, Resize::Bilinear);
        assert_eq!((resized.width, resized.height, resized.channels), (4, 4, 2));
        assert!(resized.data[..16].iter().all(|&v| v == 10));
        assert!(resized.data[16..].iter().all(|&v| v == 200));
    }
}

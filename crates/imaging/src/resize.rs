//! Resize filters, with `fast_image_resize` or as in scikit-image 0.13.

use rgby_resample::{Interpolation, Resampler};
use serde::{Deserialize, Serialize};

use super::{Planes, skimage};

/// Resize filter.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Resize {
    /// Bilinear interpolation with antialiasing, as in Pillow and torchvision (`antialias=True`).
    /// When shrinking, the triangle filter widens with the factor, so that every source pixel
    /// contributes.
    #[default]
    Bilinear,
    /// Nearest neighbour.
    Nearest,
    /// Bilinear interpolation without antialiasing, with a border that blends with black:
    /// `skimage.transform.resize` of scikit-image 0.13, as used by the reference experiments.
    Skimage,
}

impl Resize {
    /// Returns the name in configs and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bilinear => "bilinear",
            Self::Nearest => "nearest",
            Self::Skimage => "skimage",
        }
    }
}

/// Resized planes, `[channels, size, size]`, 0–255, in reused memory.
#[derive(Debug, Default)]
pub(super) struct ResizeBuffers {
    resampler: Resampler,
    bytes: Vec<u8>,
    floats: Vec<f32>,
    /// Four planes interleaved as one image, before and after the resize.
    interleaved: (Vec<u8>, Vec<u8>),
}

impl ResizeBuffers {
    /// Resizes each channel to `size`×`size` pixels; planes of that size are copied. Returns `None`
    /// if the filter yields fractions.
    pub(super) fn bytes(
        &mut self,
        planes: &Planes,
        size: u32,
        filter: Resize,
    ) -> Option<&mut [u8]> {
        let interpolation = match filter {
            _ if planes.width == size && planes.height == size => None,
            Resize::Skimage => return None,
            Resize::Bilinear => Some(Interpolation::Bilinear),
            Resize::Nearest => Some(Interpolation::Nearest),
        };
        match interpolation {
            None => planes.data.clone_into(&mut self.bytes),
            Some(interpolation) => self.convolve(planes, size, interpolation),
        }
        Some(&mut self.bytes)
    }

    /// As [`bytes`](Self::bytes), in `f32` and for every filter.
    pub(super) fn floats(&mut self, planes: &Planes, size: u32, filter: Resize) -> &mut [f32] {
        if self.bytes(planes, size, filter).is_some() {
            self.floats.clear();
            self.floats
                .extend(self.bytes.iter().copied().map(f32::from));
        } else {
            self.floats = skimage::resize(planes, size);
        }
        &mut self.floats
    }

    /// Resizes in `u8`, which is far faster than in `f32`. Four planes are interleaved as one
    /// image, which is more than twice as fast as plane by plane.
    fn convolve(&mut self, planes: &Planes, size: u32, interpolation: Interpolation) {
        let (from, to) = (planes.plane_len().max(1), (size as usize).pow(2).max(1));
        self.bytes.resize(planes.channels * to, 0);
        let (old, new) = ([planes.width, planes.height], [size; 2]);
        let sources = planes.data.chunks(4 * from);
        for (sources, targets) in sources.zip(self.bytes.chunks_mut(4 * to)) {
            if targets.len() == 4 * to {
                let (large, small) = &mut self.interleaved;
                interleave(sources, large);
                small.resize(4 * to, 0);
                let source = (large.as_slice(), old);
                self.resampler
                    .four_channels(source, (small, new), interpolation);
                deinterleave(small, targets);
            } else {
                let sources = sources.chunks_exact(from);
                for (source, target) in sources.zip(targets.chunks_exact_mut(to)) {
                    self.resampler
                        .gray((source, old), (target, new), interpolation);
                }
            }
        }
    }
}

/// Converts four consecutive planes into pixels of four values.
fn interleave(planes: &[u8], out: &mut Vec<u8>) {
    out.resize(planes.len(), 0);
    let (first, second) = planes.split_at(planes.len() / 2);
    let ((a, b), (c, d)) = (
        first.split_at(first.len() / 2),
        second.split_at(second.len() / 2),
    );
    let pixels = out.as_chunks_mut::<4>().0.iter_mut();
    for ((((pixel, a), b), c), d) in pixels.zip(a).zip(b).zip(c).zip(d) {
        *pixel = [*a, *b, *c, *d];
    }
}

/// Converts pixels of four values into four consecutive planes.
fn deinterleave(pixels: &[u8], out: &mut [u8]) {
    let pixels = pixels.as_chunks::<4>().0;
    for (channel, plane) in out.chunks_exact_mut(pixels.len().max(1)).enumerate() {
        for (value, pixel) in plane.iter_mut().zip(pixels) {
            *value = pixel[channel];
        }
    }
}

impl Planes {
    /// Returns the planes resized to `size`×`size` pixels and rounded to integers.
    #[must_use]
    pub fn resized(&self, size: u32, filter: Resize) -> Self {
        let mut resized = ResizeBuffers::default();
        let data = if resized.bytes(self, size, filter).is_some() {
            resized.bytes
        } else {
            let values = resized.floats(self, size, filter).iter();
            values.map(|value| value.round() as u8).collect()
        };
        Self {
            width: size,
            height: size,
            channels: self.channels,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resize(planes: &Planes, size: u32, filter: Resize) -> Vec<f32> {
        ResizeBuffers::default()
            .floats(planes, size, filter)
            .to_vec()
    }

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
    fn bilinear_shrinking_averages_and_nearest_picks_pixels() {
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
    fn enlarging_uses_half_pixel_centres() {
        let source = planes(2, 1, vec![0, 100]);
        // Pixel centres of the target in source coordinates: -0.25, 0.25, 0.75, 1.25.
        let wide = resize(&source, 4, Resize::Bilinear);
        assert_eq!(wide[..4], [0.0, 25.0, 75.0, 100.0]);
    }

    #[derive(serde::Deserialize)]
    struct ResizeGolden {
        input: Vec<Vec<u8>>,
        output: Vec<Vec<f32>>,
    }

    /// Generated by `tests/golden/resize.py`.
    #[test]
    fn shrinking_matches_pillow() {
        let text = include_str!("../../../tests/golden/resize.json");
        let golden: ResizeGolden = serde_json::from_str(text).unwrap();
        let (width, height) = (golden.input[0].len(), golden.input.len());
        let source = planes(width as u32, height as u32, golden.input.concat());
        let found = resize(&source, golden.output.len() as u32, Resize::Bilinear);
        for (found, wanted) in found.iter().zip(golden.output.concat()) {
            assert!((found - wanted).abs() <= 1.0, "{found} for {wanted}");
        }
    }

    #[test]
    fn planes_resized_together_equal_planes_resized_alone() {
        for (width, height) in [(5, 3), (64, 41), (9, 120)] {
            let len = (width * height) as usize;
            let data: Vec<u8> = (0..len * 7).map(|i| (i * i / 3 + i * 29) as u8).collect();
            for filter in [Resize::Bilinear, Resize::Nearest] {
                let together = planes(width, height, data.clone()).resized(16, filter).data;
                let alone = data.chunks(len).flat_map(|plane| {
                    let alone = planes(width, height, plane.to_vec());
                    alone.resized(16, filter).data
                });
                assert!(
                    together.into_iter().eq(alone),
                    "{width}×{height} {filter:?}"
                );
            }
        }
    }

    #[test]
    fn channels_do_not_mix_and_any_shape_is_accepted() {
        let mut data = vec![10; 15];
        data.extend([200; 15]);
        let resized = resize(&planes(5, 3, data), 4, Resize::Bilinear);
        assert_eq!(resized.len(), 32);
        assert_eq!(resized[..16], [10.0; 16]);
        assert_eq!(resized[16..], [200.0; 16]);
    }
}

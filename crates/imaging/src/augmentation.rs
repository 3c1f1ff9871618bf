//! Augmentation of one sample: crop, symmetry, and a gain per stain.

use super::{Planes, dihedral};

/// How a sample is changed before normalization. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Augmentation {
    /// `None` keeps the whole image.
    pub crop: Option<Crop>,
    /// Symmetry of the square, 0–7, numbered as in [`dihedral`].
    pub dihedral: u8,
    /// Factor for the pixels of each stain; the product is clamped to 0–255. Stains beyond the end
    /// of the list are unchanged.
    pub gains: Vec<f32>,
}

/// A rectangle in fractions of the image, independent of its size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// Fraction of the width and of the height that is kept, above 0 and at most 1.
    pub share: f64,
    /// Fraction of the removed columns that lie left of the crop, 0–1.
    pub left: f64,
    /// Fraction of the removed rows that lie above the crop, 0–1.
    pub top: f64,
}

impl Crop {
    /// Writes the crop of `planes`, at least one pixel, to `cropped`.
    pub(super) fn cut(&self, planes: &Planes, cropped: &mut Planes) {
        let span = |side: u32, position: f64| {
            let length = ((f64::from(side) * self.share).round() as u32).clamp(1.min(side), side);
            let room = side - length;
            // All offsets are equally likely: there is one more of them than removed pixels.
            let start = ((f64::from(room + 1) * position) as u32).min(room);
            (start as usize, length as usize)
        };
        let (left, width) = span(planes.width, self.left);
        let (top, height) = span(planes.height, self.top);
        (cropped.width, cropped.height) = (width as u32, height as u32);
        cropped.channels = planes.channels;
        cropped.data.clear();
        for row in (0..planes.channels).flat_map(|c| {
            let plane = c * planes.height as usize + top;
            plane..plane + height
        }) {
            let start = row * planes.width as usize + left;
            cropped
                .data
                .extend_from_slice(&planes.data[start..start + width]);
        }
    }
}

impl Augmentation {
    /// Applies symmetry and gain to the resized plane of stain `number`, `[side, side]`.
    pub(super) fn apply(&self, number: usize, plane: &mut [f32], side: usize) {
        dihedral(plane, side, self.dihedral);
        if let Some(gain) = self.gains.get(number) {
            for pixel in plane {
                *pixel = (*pixel * gain).clamp(0.0, 255.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planes() -> Planes {
        Planes {
            width: 4,
            height: 2,
            channels: 2,
            data: (0..16).collect(),
        }
    }

    fn crop(share: f64, left: f64, top: f64) -> Planes {
        let mut cropped = Planes::default();
        Crop { share, left, top }.cut(&planes(), &mut cropped);
        cropped
    }

    #[test]
    fn crop_keeps_the_given_fraction_of_both_sides() {
        let cropped = crop(0.5, 0.0, 0.0);
        assert_eq!((cropped.width, cropped.height, cropped.channels), (2, 1, 2));
        assert_eq!(cropped.data, [0, 1, 8, 9]);
        assert_eq!(crop(0.5, 0.5, 0.99).data, [5, 6, 13, 14]);
        assert_eq!(crop(0.5, 1.0, 1.0).data, [6, 7, 14, 15]);
        assert_eq!(crop(1.0, 0.7, 0.2), planes());
        assert_eq!(crop(1e-9, 0.0, 0.0).data, [0, 8]);
    }

    #[test]
    fn gains_are_clamped_to_the_gray_scale() {
        let augmentation = Augmentation {
            gains: vec![1.5],
            ..Augmentation::default()
        };
        let mut plane = [0.0, 100.0, 200.0, 255.0];
        augmentation.apply(0, &mut plane, 2);
        assert_eq!(plane.to_vec(), [0.0, 150.0, 255.0, 255.0]);
        let mut beyond = [1.0, 2.0, 3.0, 4.0];
        augmentation.apply(1, &mut beyond, 2);
        assert_eq!(beyond.to_vec(), [1.0, 2.0, 3.0, 4.0]);
    }
}

//! One way to show a sample: a part of it, turned, with each stain brighter or darker.

use super::{Planes, dihedral};

/// How a sample is changed on its way to the network. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Variation {
    /// The part of the image that is shown; all of it if `None`.
    pub crop: Option<Crop>,
    /// Symmetry of the square, 0–7, as [`dihedral`] counts them.
    pub dihedral: u8,
    /// What the pixels of each stain are multiplied by, before they are cut to 0–255. Stains
    /// beyond the list stay as they are.
    pub gains: Vec<f32>,
}

/// A part of an image, in shares of it, so that one crop fits images of all sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crop {
    /// Share of the width and of the height that is shown, above 0 and at most 1.
    pub share: f64,
    /// How much of what is left over in the width lies on the left, 0–1.
    pub left: f64,
    /// How much of what is left over in the height lies above, 0–1.
    pub top: f64,
}

impl Crop {
    /// Cuts the part out of `planes`, at least one pixel, and puts it in the place of `part`.
    pub(super) fn cut(&self, planes: &Planes, part: &mut Planes) {
        let span = |side: u32, at: f64| {
            let length = ((f64::from(side) * self.share).round() as u32).clamp(1.min(side), side);
            let room = side - length;
            // All places are equally likely: there is one more of them than pixels left over.
            let start = ((f64::from(room + 1) * at) as u32).min(room);
            (start as usize, length as usize)
        };
        let (left, width) = span(planes.width, self.left);
        let (top, height) = span(planes.height, self.top);
        (part.width, part.height) = (width as u32, height as u32);
        part.channels = planes.channels;
        part.data.clear();
        for row in (0..planes.channels).flat_map(|c| {
            let plane = c * planes.height as usize + top;
            plane..plane + height
        }) {
            let start = row * planes.width as usize + left;
            part.data
                .extend_from_slice(&planes.data[start..start + width]);
        }
    }
}

impl Variation {
    /// Turns the resized plane of stain `number`, `[side, side]`, and makes it brighter or darker.
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
        let mut part = Planes::default();
        Crop { share, left, top }.cut(&planes(), &mut part);
        part
    }

    #[test]
    fn a_crop_keeps_its_share_of_both_sides() {
        let part = crop(0.5, 0.0, 0.0);
        assert_eq!((part.width, part.height, part.channels), (2, 1, 2));
        assert_eq!(part.data, [0, 1, 8, 9]);
        assert_eq!(crop(0.5, 0.5, 0.99).data, [5, 6, 13, 14]);
        assert_eq!(crop(0.5, 1.0, 1.0).data, [6, 7, 14, 15]);
        assert_eq!(crop(1.0, 0.7, 0.2), planes());
        assert_eq!(crop(1e-9, 0.0, 0.0).data, [0, 8]);
    }

    #[test]
    fn gains_stop_at_the_ends_of_the_scale() {
        let variation = Variation {
            gains: vec![1.5],
            ..Variation::default()
        };
        let mut plane = [0.0, 100.0, 200.0, 255.0];
        variation.apply(0, &mut plane, 2);
        assert_eq!(plane.to_vec(), [0.0, 150.0, 255.0, 255.0]);
        let mut beyond = [1.0, 2.0, 3.0, 4.0];
        variation.apply(1, &mut beyond, 2);
        assert_eq!(beyond.to_vec(), [1.0, 2.0, 3.0, 4.0]);
    }
}

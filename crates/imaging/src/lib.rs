//! From image files to the network's input: bounded decoding, channels, resizing, normalisation.
//!
//! A sample is one field of view, stored as one gray image file a stain or as one TIFF file with
//! all of them: [`find_samples`] lists the samples of a folder, [`read_sample`] decodes one into
//! [`Planes`], and [`Preprocess`] turns those into the `[C, H, W]` floats that a network takes; a
//! [`Preparer`] does it for many samples in the same memory. A channel of the network is a stain
//! or a sum of several, a [`Mix`].

mod decode;
mod dihedral;
mod files;
mod mix;
mod multichannel_tiff;
mod occlusion;
mod preparer;
mod preparers;
mod preprocess;
mod resize;
mod sample;
mod skimage;
mod variation;

pub use decode::{
    ChannelError, DecodeError, DecodeLimits, check_channels, decode_channels, decode_plane,
    gray_8_bit,
};
pub use dihedral::{DIHEDRAL, dihedral};
pub use files::{FileSource, LocalFiles};
pub use mix::{Mix, MixError, Term};
pub use multichannel_tiff::{is_tiff_name, with_all_channels};
pub use occlusion::{draw_cells, hide_cell};
pub use preparer::Preparer;
pub use preparers::Preparers;
pub use preprocess::Preprocess;
pub use resize::Resize;
pub use sample::{
    ChannelSelector, FindError, Sample, SampleError, SampleErrorKind, SampleFile, each_part,
    find_samples, read_sample, samples_among,
};
pub use variation::{Crop, Variation};

/// The four stains of a Human Protein Atlas sample: microtubules, target protein, nucleus,
/// endoplasmic reticulum. They are the channels where nothing else is said.
pub const CHANNELS: [&str; 4] = ["red", "green", "blue", "yellow"];

/// One gray image: a single channel of a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pixels row by row, `[height, width]`, 0–255.
    pub data: Vec<u8>,
}

/// The channels of one sample, all of one size. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planes {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Number of channels.
    pub channels: usize,
    /// Pixels, `[channels, height, width]`, 0–255.
    pub data: Vec<u8>,
}

impl Planes {
    /// Pixels of one channel.
    #[must_use]
    pub fn plane_len(&self) -> usize {
        self.width as usize * self.height as usize
    }

    /// The pixels of channel `index`, `[height, width]`; `None` past the last channel.
    #[must_use]
    pub fn plane(&self, index: usize) -> Option<&[u8]> {
        let len = self.plane_len();
        self.data.get(index * len..(index + 1) * len)
    }
}

/// A picture of a sample for people to look at.
///
/// `planes` are red, green, blue, yellow in this order; channels that are not there stay black.
/// Yellow is shown at half strength as red plus green, so that it does not drown the protein.
#[must_use]
pub fn composite(planes: &Planes) -> image::RgbImage {
    let channel = |index: usize, at: usize| planes.plane(index).map_or(0, |plane| plane[at]);
    image::RgbImage::from_fn(planes.width, planes.height, |x, y| {
        let at = y as usize * planes.width as usize + x as usize;
        let half_yellow = channel(3, at) / 2;
        image::Rgb([
            channel(0, at).saturating_add(half_yellow),
            channel(1, at).saturating_add(half_yellow),
            channel(2, at),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_composite_adds_yellow_to_red_and_green() {
        let planes = Planes {
            width: 1,
            height: 1,
            channels: 4,
            data: vec![10, 250, 30, 100],
        };
        assert_eq!(composite(&planes).get_pixel(0, 0).0, [60, 255, 30]);
        let three = Planes {
            width: 1,
            height: 1,
            channels: 3,
            data: vec![10, 20, 30],
        };
        assert_eq!(composite(&three).get_pixel(0, 0).0, [10, 20, 30]);
    }
}

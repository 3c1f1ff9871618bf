//! Conversion of image files into network inputs: bounded decoding, channels, resize,
//! normalization.
//!
//! A sample is one field of view, stored as one gray image file per stain or as one TIFF file with
//! all stains. [`find_samples`] lists the samples of a folder, [`read_sample`] decodes one into
//! [`Planes`]. A [`Preprocess`] specifies how these become the `[C, H, W]` floats of a network, and
//! a [`Preprocessor`] executes it for many samples with reused memory. A channel of the network is
//! a stain or a weighted sum of stains, a [`StainMix`].

mod augmentation;
mod decode;
mod dihedral;
mod error;
mod files;
mod find_samples;
mod multichannel_tiff;
mod occlusion;
mod preprocess;
mod preprocessor;
mod read_sample;
mod resize;
mod sample;
mod skimage;
mod stain_mix;

pub use augmentation::{Augmentation, Crop};
pub use decode::{
    ChannelError, DecodeError, DecodeLimits, check_channels, decode_channels, decode_plane,
    gray_8_bit,
};
pub use dihedral::{DIHEDRAL, dihedral};
pub use error::{FindError, SampleError, SampleErrorKind};
pub use files::{FileSource, LocalFiles};
pub use find_samples::{find_samples, samples_among};
pub use multichannel_tiff::{is_tiff_name, multichannel_samples};
pub use occlusion::{draw_cells, hide_cell};
pub use preprocess::Preprocess;
pub use preprocessor::{Preprocessor, PreprocessorSet};
pub use read_sample::{SampleFile, for_each_file, read_sample};
pub use resize::Resize;
pub use sample::{ChannelSelector, Sample};

/// Image file extensions, compared without case.
const IMAGE_EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "tif", "tiff"];
pub use stain_mix::{StainMix, StainMixError, WeightedStain};

/// The four stains of a Human Protein Atlas sample: microtubules, target protein, nucleus,
/// endoplasmic reticulum. They are the default channels.
pub const CHANNELS: [&str; 4] = ["red", "green", "blue", "yellow"];

/// One gray image: a single channel of a sample. Sizes are in pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    pub width: u32,
    pub height: u32,
    /// `[height, width]`, 0–255.
    pub data: Vec<u8>,
}

/// The channels of one sample, all of the same size in pixels. Empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Planes {
    pub width: u32,
    pub height: u32,
    pub channels: usize,
    /// `[channels, height, width]`, 0–255.
    pub data: Vec<u8>,
}

impl Planes {
    /// Returns the number of pixels of one channel.
    #[must_use]
    pub fn plane_len(&self) -> usize {
        self.width as usize * self.height as usize
    }

    /// Returns the pixels of channel `index`, `[height, width]`; `None` past the last channel.
    #[must_use]
    pub fn plane(&self, index: usize) -> Option<&[u8]> {
        let len = self.plane_len();
        self.data.get(index * len..(index + 1) * len)
    }
}

/// Renders a sample as an RGB image for display.
///
/// `planes` are red, green, blue, yellow in this order; missing channels are black. Yellow is drawn
/// at half strength as red plus green, so that it does not hide the protein.
#[must_use]
pub fn composite(planes: &Planes) -> image::RgbImage {
    let channel = |index: usize, pixel: usize| planes.plane(index).map_or(0, |plane| plane[pixel]);
    image::RgbImage::from_fn(planes.width, planes.height, |x, y| {
        let pixel = y as usize * planes.width as usize + x as usize;
        let half_yellow = channel(3, pixel) / 2;
        image::Rgb([
            channel(0, pixel).saturating_add(half_yellow),
            channel(1, pixel).saturating_add(half_yellow),
            channel(2, pixel),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composite_adds_yellow_to_red_and_green() {
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

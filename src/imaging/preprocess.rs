//! The one definition of how image files become a network's input, for training and serving.

use serde::{Deserialize, Serialize};

use super::resize::resize_planes;
use super::{DecodeLimits, Planes, Resize, Sample, SampleError, read_sample};

/// Largest input side that a network may ask for, in pixels.
const MAX_SIZE: u32 = 4096;
/// Most channels that a network may ask for.
pub const MAX_CHANNELS: usize = 64;

/// How image files become a network's input. It travels with the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Stains in the order of the network's input, as the file names have them.
    pub channels: Vec<String>,
    /// Side of the square input in pixels. Other shapes are stretched.
    pub size: u32,
    /// How images get that size.
    pub resize: Resize,
    /// Mean of each channel, on the scale 0–1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, on the scale 0–1.
    pub std: Vec<f32>,
}

impl Preprocess {
    /// Bilinear resizing to `size`×`size`, then `(x / 255 − 0.5) / 0.5` in each channel: the
    /// normalisation of the reference experiments, with values in −1…1.
    #[must_use]
    pub fn new(channels: &[impl AsRef<str>], size: u32) -> Self {
        Self {
            channels: channels.iter().map(|c| c.as_ref().to_owned()).collect(),
            size,
            resize: Resize::default(),
            mean: vec![0.5; channels.len()],
            std: vec![0.5; channels.len()],
        }
    }

    /// Checks that the fields make sense and agree with each other.
    ///
    /// # Errors
    ///
    /// A sentence that names the first field that does not fit, and what would.
    pub fn validate(&self) -> Result<(), String> {
        if !(1..=MAX_CHANNELS).contains(&self.channels.len()) {
            return Err(format!(
                "`channels` has {} entries; name 1 to {MAX_CHANNELS} stains",
                self.channels.len()
            ));
        }
        for (i, channel) in self.channels.iter().enumerate() {
            let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
            if channel.is_empty() || !channel.chars().all(plain) {
                return Err(format!(
                    "`channels` names `{}`; a stain's name has letters, digits, `-`, `_` and `.`",
                    channel.escape_debug()
                ));
            }
            if self.channels[..i].contains(channel) {
                return Err(format!("`channels` names `{channel}` twice; name it once"));
            }
        }
        if !(1..=MAX_SIZE).contains(&self.size) {
            return Err(format!(
                "`size` is {}; it must be 1 to {MAX_SIZE} pixels",
                self.size
            ));
        }
        let wanted = self.channels.len();
        for (field, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != wanted {
                let has = values.len();
                return Err(format!(
                    "`{field}` has {has} values for {wanted} channels; give one for each channel"
                ));
            }
            if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                return Err(format!("`{field}` holds {bad}; it must be a finite number"));
            }
        }
        if let Some(bad) = self.std.iter().find(|v| **v <= 0.0) {
            return Err(format!("`std` holds {bad}; it must be greater than 0"));
        }
        Ok(())
    }

    /// Number of values in one sample's input: channels × size × size.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.channels.len() * (self.size as usize).pow(2)
    }

    /// Stretches each channel to `size`×`size`; see [`Resize`].
    #[must_use]
    pub fn resize(&self, planes: &Planes) -> Planes {
        resize_planes(planes, self.size, self.resize)
    }

    /// Writes `(x / 255 − mean) / std` of planes `[C, size, size]` to `out`, in the same layout.
    ///
    /// # Panics
    ///
    /// If `planes` or `out` does not hold [`input_len`](Self::input_len) values.
    pub fn normalise(&self, planes: &Planes, out: &mut [f32]) {
        assert_eq!(
            planes.data.len(),
            self.input_len(),
            "planes are [channels, size, size]"
        );
        assert_eq!(out.len(), self.input_len(), "out is [channels, size, size]");
        let len = planes.plane_len();
        let pixels = planes.data.chunks_exact(len).zip(out.chunks_exact_mut(len));
        for ((source, target), (mean, std)) in pixels.zip(self.mean.iter().zip(&self.std)) {
            for (x, y) in source.iter().zip(target) {
                *y = (f32::from(*x) / 255.0 - mean) / std;
            }
        }
    }

    /// Reads, resizes and normalises a sample into `out`, `[C, size, size]`.
    ///
    /// The sample's channels must be this preprocessing's, as [`find_samples`] was given them.
    ///
    /// [`find_samples`]: super::find_samples
    ///
    /// # Errors
    ///
    /// As [`read_sample`].
    ///
    /// # Panics
    ///
    /// If `out` does not hold [`input_len`](Self::input_len) values or the sample has another
    /// number of channels.
    pub fn load(
        &self,
        sample: &Sample,
        limits: &DecodeLimits,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        let planes = read_sample(sample, limits)?;
        self.normalise(&self.resize(&planes), out);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::CHANNELS;

    #[test]
    fn normalisation_is_that_of_the_reference_by_default() {
        let preprocess = Preprocess::new(&CHANNELS[..2], 1);
        let planes = Planes {
            width: 1,
            height: 1,
            channels: 2,
            data: vec![0, 255],
        };
        let mut out = [9.0; 2];
        preprocess.normalise(&planes, &mut out);
        assert_eq!(out.to_vec(), [-1.0, 1.0]);
    }

    #[test]
    fn each_channel_has_its_own_mean_and_std() {
        let mut preprocess = Preprocess::new(&CHANNELS[..2], 1);
        preprocess.mean = vec![0.0, 1.0];
        preprocess.std = vec![1.0, 0.25];
        let planes = Planes {
            width: 1,
            height: 1,
            channels: 2,
            data: vec![51, 204],
        };
        let mut out = [9.0; 2];
        preprocess.normalise(&planes, &mut out);
        assert!(
            (out[0] - 0.2).abs() < 1e-6 && (out[1] + 0.8).abs() < 1e-6,
            "{out:?}"
        );
    }

    #[test]
    fn files_become_input() {
        let dir = tempfile::tempdir().unwrap();
        for (i, channel) in CHANNELS.iter().enumerate() {
            let image = image::GrayImage::from_pixel(6, 4, image::Luma([i as u8 * 85]));
            image
                .save(dir.path().join(format!("a_{channel}.png")))
                .unwrap();
        }
        let preprocess = Preprocess::new(&CHANNELS, 2);
        let samples = super::super::find_samples(dir.path(), &preprocess.channels).unwrap();
        let mut out = vec![9.0; preprocess.input_len()];
        preprocess
            .load(&samples[0], &DecodeLimits::default(), &mut out)
            .unwrap();
        let means: Vec<_> = out.chunks(4).map(|c| c.iter().sum::<f32>() / 4.0).collect();
        for (mean, wanted) in means.iter().zip([-1.0, -1.0 / 3.0, 1.0 / 3.0, 1.0]) {
            assert!((mean - wanted).abs() < 1e-6, "{means:?}");
        }
    }

    #[test]
    fn each_wrong_field_is_named() {
        let good = Preprocess::new(&CHANNELS, 64);
        assert_eq!(good.validate(), Ok(()));
        let wrong = |change: &dyn Fn(&mut Preprocess), field: &str| {
            let mut preprocess = good.clone();
            change(&mut preprocess);
            let error = preprocess.validate().unwrap_err();
            assert!(error.starts_with(&format!("`{field}`")), "{error}");
        };
        wrong(&|p| p.channels.clear(), "channels");
        wrong(&|p| p.channels[0] = "a/b".into(), "channels");
        wrong(&|p| p.channels[0] = String::new(), "channels");
        wrong(&|p| p.channels[0] = "blue".into(), "channels");
        wrong(&|p| p.size = 0, "size");
        wrong(&|p| p.size = 5000, "size");
        wrong(&|p| p.mean.truncate(3), "mean");
        wrong(&|p| p.mean[1] = f32::NAN, "mean");
        wrong(&|p| p.std[1] = 0.0, "std");
    }

    #[test]
    fn json_keeps_it_and_refuses_unknown_fields() {
        let preprocess = Preprocess::new(&CHANNELS, 64);
        let text = serde_json::to_string(&preprocess).unwrap();
        assert!(text.contains("\"bilinear\""), "{text}");
        assert_eq!(
            serde_json::from_str::<Preprocess>(&text).unwrap(),
            preprocess
        );
        let extra = text.replacen('{', "{\"colour\":1,", 1);
        assert!(serde_json::from_str::<Preprocess>(&extra).is_err());
    }
}

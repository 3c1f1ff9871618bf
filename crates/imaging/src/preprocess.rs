//! The one definition of how image files become a network's input, for training and serving.

use serde::{Deserialize, Serialize};

use super::{Mix, Resize, mix};

/// Largest input side that a network may ask for, in pixels.
const MAX_SIZE: u32 = 4096;
/// Most channels of a network's input, and most stains that they are made of.
const MAX_CHANNELS: usize = 64;

/// How image files become a network's input. It travels with the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Channels in the order of the network's input: stains, or sums of them as [`Mix`] reads
    /// them.
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
        self.validate_channels()?;
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

    fn validate_channels(&self) -> Result<(), String> {
        let count = self.channels.len();
        if !(1..=MAX_CHANNELS).contains(&count) {
            return Err(format!(
                "`channels` has {count} entries; name 1 to {MAX_CHANNELS}, such as `red`"
            ));
        }
        let mut mixes: Vec<Mix> = Vec::with_capacity(count);
        for channel in &self.channels {
            let mix = channel
                .parse()
                .map_err(|error| format!("`channels` holds `{channel}`: {error}"))?;
            if mixes.contains(&mix) {
                return Err(format!("`channels` names `{channel}` twice; name it once"));
            }
            mixes.push(mix);
        }
        let stains = self.stains().len();
        if stains > MAX_CHANNELS {
            return Err(format!(
                "`channels` are made of {stains} stains; use at most {MAX_CHANNELS}"
            ));
        }
        Ok(())
    }

    /// The stains that the channels are made of, each once, in the order in which they first
    /// appear: the files that a sample needs. A channel that [`validate`](Self::validate) refuses
    /// counts as one stain of that name.
    #[must_use]
    pub fn stains(&self) -> Vec<String> {
        mix::stains(&self.channels)
    }

    /// Number of values in one sample's input: channels × size × size.
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.channels.len() * (self.size as usize).pow(2)
    }
}

#[cfg(test)]
mod tests;

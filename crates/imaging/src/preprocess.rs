//! Specification of preprocessing, the same for training, scoring and serving.

use serde::{Deserialize, Serialize};

use super::{Resize, StainMix, stain_mix};

/// Largest input side in pixels.
const MAX_SIZE: u32 = 4096;
/// Limit of input channels, and of the stains in them.
const MAX_CHANNELS: usize = 64;

/// How image files become a network's input. It is stored with the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Channels in the order of the network's input: stains or expressions for a [`StainMix`].
    pub channels: Vec<String>,
    /// Side of the square input in pixels. Images of other shapes are stretched.
    pub size: u32,
    pub resize: Resize,
    /// Mean of each channel, on the scale 0–1.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, on the scale 0–1.
    pub std: Vec<f32>,
}

impl Preprocess {
    /// Returns bilinear resize to `size`×`size` and `(x / 255 − 0.5) / 0.5` in each channel: the
    /// normalization of the reference experiments, with values from −1 to 1.
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

    /// Checks that the fields are in range and consistent.
    ///
    /// # Errors
    ///
    /// A message that names the first invalid field and its valid values.
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
                    "`{field}` has {has} values for {wanted} channels; set one value per channel"
                ));
            }
            if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
                return Err(format!(
                    "`{field}` contains {bad}; it must be a finite number"
                ));
            }
        }
        if let Some(bad) = self.std.iter().find(|v| **v <= 0.0) {
            return Err(format!("`std` contains {bad}; it must be greater than 0"));
        }
        Ok(())
    }

    fn validate_channels(&self) -> Result<(), String> {
        let count = self.channels.len();
        if !(1..=MAX_CHANNELS).contains(&count) {
            return Err(format!(
                "`channels` has {count} entries; list 1 to {MAX_CHANNELS}, such as `red`"
            ));
        }
        let mut mixes: Vec<StainMix> = Vec::with_capacity(count);
        for channel in &self.channels {
            let mix = channel
                .parse()
                .map_err(|error| format!("`channels` contains `{channel}`: {error}"))?;
            if mixes.contains(&mix) {
                return Err(format!("`channels` contains `{channel}` twice; remove one"));
            }
            mixes.push(mix);
        }
        let stains = self.stains().len();
        if stains > MAX_CHANNELS {
            return Err(format!(
                "`channels` use {stains} stains; use at most {MAX_CHANNELS}"
            ));
        }
        Ok(())
    }

    /// Returns the stains of the channels in order of first appearance, each once: the files that a
    /// sample must have. A channel that [`validate`](Self::validate) rejects counts as one stain of
    /// that name.
    #[must_use]
    pub fn stains(&self) -> Vec<String> {
        stain_mix::stains(&self.channels)
    }

    /// Returns the number of values in one sample's input: channels × size².
    #[must_use]
    pub fn input_len(&self) -> usize {
        self.channels.len() * (self.size as usize).pow(2)
    }
}

#[cfg(test)]
mod tests;

//! `[model]` of a config: which network, on what input, for which classes.

use serde::{Deserialize, Serialize};

use super::Arch;
use crate::imaging::CHANNELS;
use crate::labels::hpa_classes;

/// `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The network.
    pub arch: Arch,
    /// Side of the square input, pixels.
    pub input_size: u32,
    /// Stains or sums of them, in the order of the input's channels.
    #[serde(default = "default_channels")]
    pub channels: Vec<String>,
    /// Class names, in the order of the outputs.
    #[serde(default = "hpa_classes")]
    pub classes: Vec<String>,
    /// Share of the pooled features dropped in training, 0–1.
    #[serde(default)]
    pub dropout: f64,
    /// Widths of dense ReLU layers between features and output.
    #[serde(default)]
    pub hidden: Vec<usize>,
    /// Share of each hidden layer's outputs dropped in training, 0–1.
    #[serde(default)]
    pub hidden_dropout: f64,
}

impl ModelConfig {
    /// A network with one dense layer on its features and the 28 classes of the Human Protein
    /// Atlas.
    #[must_use]
    pub fn new(arch: Arch, input_size: u32) -> Self {
        Self {
            arch,
            input_size,
            channels: default_channels(),
            classes: hpa_classes(),
            dropout: 0.0,
            hidden: Vec::new(),
            hidden_dropout: 0.0,
        }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// A sentence that names the field and the mend.
    pub fn validate(&self) -> Result<(), String> {
        let smallest = self.arch.min_input_size();
        if !(smallest..=4096).contains(&self.input_size) {
            return Err(format!(
                "model.input_size is {}; {} takes {smallest} to 4096",
                self.input_size,
                self.arch.name()
            ));
        }
        if self.channels.is_empty() || self.classes.is_empty() {
            return Err("model.channels and model.classes need at least one entry each".into());
        }
        for (field, value) in [
            ("dropout", self.dropout),
            ("hidden_dropout", self.hidden_dropout),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!(
                    "model.{field} is {value}; it must be at least 0 and below 1"
                ));
            }
        }
        if self.hidden.contains(&0) {
            return Err("model.hidden holds 0; a layer needs at least one unit".into());
        }
        Ok(())
    }
}

fn default_channels() -> Vec<String> {
    CHANNELS.map(String::from).to_vec()
}

//! What a model needs to be used: classes, thresholds, preprocessing and where it came from.
//!
//! A [`ModelSpec`] is written into every checkpoint and, as one JSON metadata entry, into every
//! exported ONNX file, so that `score` and `eval` need nothing beside that file.

use serde::{Deserialize, Serialize};

use crate::imaging::Preprocess;

/// Key of the ONNX `metadata_props` entry that holds the [`ModelSpec`] as JSON.
pub const METADATA_KEY: &str = "rgby";

/// Everything about a model that is not a weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name of the network, as `model.arch` in a config: `resnet50`, `baseline`, …
    pub arch: String,
    /// Class names, in the order of the model's outputs.
    pub classes: Vec<String>,
    /// Decision threshold of each class, 0–1: a class is predicted where its probability is at
    /// least this.
    pub thresholds: Vec<f32>,
    /// How image files become the model's input.
    pub preprocess: Preprocess,
    /// Where the weights came from.
    pub provenance: Provenance,
}

/// Where a model's weights came from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of rgby that wrote the file.
    pub rgby_version: String,
    /// The pretrained file, if any: its name, without the folder.
    pub source: Option<String>,
    /// SHA-256 of the pretrained file, lower-case hexadecimal.
    pub source_sha256: Option<String>,
    /// Training steps taken since the weights were converted or initialised.
    pub steps: u64,
}

impl ModelSpec {
    /// Checks that the parts agree with each other.
    ///
    /// # Errors
    ///
    /// A sentence that names the first field that does not fit.
    pub fn validate(&self) -> Result<(), String> {
        if self.classes.is_empty() {
            return Err("`classes` is empty".into());
        }
        if self.thresholds.len() != self.classes.len() {
            return Err(format!(
                "`thresholds` has {} entries for {} classes",
                self.thresholds.len(),
                self.classes.len()
            ));
        }
        if let Some(bad) = self.thresholds.iter().find(|t| !(0.0..=1.0).contains(*t)) {
            return Err(format!(
                "`thresholds` holds {bad}, which is not between 0 and 1"
            ));
        }
        self.preprocess.validate()
    }
}

//! Metadata of a model: classes, thresholds, preprocessing and provenance.
//!
//! A [`ModelSpec`] is part of every checkpoint and, as one JSON metadata entry, of every exported
//! ONNX file, so that `score` and `eval` need only that file.

mod thresholds;

use std::fmt;

use serde::{Deserialize, Serialize};

use rgby_imaging::Preprocess;

pub use thresholds::{ThresholdFault, ThresholdFile, ThresholdFileError};

/// Key of the ONNX `metadata_props` entry that holds the [`ModelSpec`] as JSON.
pub const METADATA_KEY: &str = "rgby";
/// Name of the optional output `[N, F]` float32 of pooled features.
pub const EMBEDDINGS_NAME: &str = "embeddings";

/// Everything about a model that is not a weight.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Name of the network, as `model.arch` in a config: `resnet50`, `baseline`, …
    pub arch: String,
    /// Class names, in the order of the model's outputs.
    pub classes: Vec<String>,
    /// Decision threshold of each class, 0–1: a class is predicted if its probability is at least
    /// this.
    pub thresholds: Vec<f32>,
    pub preprocess: Preprocess,
    pub provenance: Provenance,
    /// Number format of weights and computation.
    #[serde(default, skip_serializing_if = "Precision::is_full")]
    pub precision: Precision,
    /// Width of the output [`EMBEDDINGS_NAME`], if the file has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<usize>,
}

/// Number format of weights and computation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32, as in training.
    #[default]
    Fp32,
    /// float16; inputs, outputs and sums over feature maps in float32.
    Fp16,
    /// 8-bit integers, with ranges measured on calibration images.
    Int8,
}

impl Precision {
    /// Whether this is float32.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self == Self::Fp32
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
        })
    }
}

/// Origin of the weights of a model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Version of rgby that wrote the file.
    pub rgby_version: String,
    /// Name of the pretrained file, without folder.
    pub source: Option<String>,
    /// SHA-256 of the pretrained file, lower-case hexadecimal.
    pub source_sha256: Option<String>,
    /// Training steps taken since the weights were converted or initialised.
    pub steps: u64,
}

impl ModelSpec {
    /// Creates the metadata of a float32 model of this version of rgby, with thresholds of 0.5 and
    /// no pretrained file.
    #[must_use]
    pub fn new(arch: &str, classes: Vec<String>, preprocess: Preprocess) -> Self {
        Self {
            arch: arch.to_owned(),
            thresholds: vec![0.5; classes.len()],
            classes,
            preprocess,
            provenance: Provenance {
                rgby_version: env!("CARGO_PKG_VERSION").into(),
                ..Provenance::default()
            },
            precision: Precision::Fp32,
            embeddings: None,
        }
    }

    /// Checks that the fields are consistent.
    ///
    /// # Errors
    ///
    /// A message that names the first invalid field.
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
                "`thresholds` contains {bad}, which is not between 0 and 1"
            ));
        }
        if self.embeddings == Some(0) {
            return Err("`embeddings` is 0; leave it out if there are none".into());
        }
        self.preprocess.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_without_newer_fields_round_trip() {
        let old = r#"{"arch":"tiny","classes":["a"],"thresholds":[0.5],"preprocess":PREPROCESS,
            "provenance":{"rgby_version":"0.1.0","source":null,"source_sha256":null,"steps":0}}"#;
        let preprocess = Preprocess::new(&["red"], 8);
        let old = old.replace("PREPROCESS", &serde_json::to_string(&preprocess).unwrap());
        let spec: ModelSpec = serde_json::from_str(&old).unwrap();
        assert_eq!((spec.precision, spec.embeddings), (Precision::Fp32, None));
        let written: serde_json::Value = serde_json::to_value(&spec).unwrap();
        assert_eq!(
            written,
            serde_json::from_str::<serde_json::Value>(&old).unwrap()
        );
        let newer = ModelSpec {
            precision: Precision::Int8,
            embeddings: Some(3),
            ..spec
        };
        let text = serde_json::to_string(&newer).unwrap();
        assert!(
            text.contains(r#""precision":"int8","embeddings":3"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<ModelSpec>(&text).unwrap(), newer);
    }
}

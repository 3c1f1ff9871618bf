//! A model that does not say what it is, and the file that says it instead.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use crate::imaging::{Preprocess, Resize};
use crate::model_metadata::{ModelSpec, Precision, Provenance};
use crate::score::ModelFile;

/// What `rgby export` would have written into the model.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// Names, in the order of the outputs.
    classes: Vec<String>,
    /// Stains, in the order of the input.
    channels: Vec<String>,
    /// Side of the input in pixels.
    size: u32,
    #[serde(default)]
    resize: Resize,
    /// On the scale 0–1; 0.5 each if absent.
    mean: Option<Vec<f32>>,
    /// On the scale 0–1; 0.5 each if absent.
    std: Option<Vec<f32>>,
    /// 0.5 each if absent.
    thresholds: Option<Vec<f32>>,
}

/// Opens a `model` of another program's, which is what the TOML file `description` says.
///
/// # Errors
///
/// The description cannot be read or lacks something, the model is not as it says, or the model
/// says itself what it is.
pub(super) fn open_described(model: &Path, description: &Path) -> anyhow::Result<ModelFile> {
    let name = description.display();
    let text = fs::read_to_string(description).with_context(|| format!("--spec {name}"))?;
    let said: Description = toml::from_str(&text).with_context(|| format!("--spec {name}"))?;
    let mut preprocess = Preprocess::new(&said.channels, said.size);
    preprocess.resize = said.resize;
    preprocess.mean = said.mean.unwrap_or(preprocess.mean);
    preprocess.std = said.std.unwrap_or(preprocess.std);
    let spec = ModelSpec {
        arch: "unknown".into(),
        thresholds: said.thresholds.unwrap_or(vec![0.5; said.classes.len()]),
        classes: said.classes,
        preprocess,
        provenance: Provenance::default(),
        precision: Precision::Fp32,
        embeddings: None,
    };
    Ok(ModelFile::open_as(model, spec)?)
}

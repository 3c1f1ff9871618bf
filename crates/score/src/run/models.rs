//! Opening the models of a run.

use std::fs;

use serde::Deserialize;

use super::{ScoreModels, ScoreRunError};
use crate::model_metadata::{ModelSpec, Precision, Provenance};
use crate::scorer::open_staged_model;
use crate::staging::{StagedFile, StagedFiles};
use crate::{Decision, EngineError, Ensemble, ModelFile, Threshold};
use rgby_imaging::{Preprocess, Resize};

/// The model files of a run as local files.
pub(super) struct StagedModels {
    pub(super) model: StagedFile,
    pub(super) ensemble: Vec<StagedFile>,
    spec: Option<StagedFile>,
}

impl ScoreModels {
    /// Downloads the model files that are remote.
    pub(super) fn stage(&self, staged: &mut StagedFiles) -> Result<StagedModels, ScoreRunError> {
        let model = staged.input("--model", &self.model)?;
        let ensemble = self.ensemble.iter();
        let ensemble = ensemble.map(|path| staged.input("--ensemble", path));
        let ensemble = ensemble.collect::<Result<_, _>>()?;
        let spec = self.spec.as_ref();
        let spec = spec.map(|path| staged.input("--spec", path)).transpose()?;
        Ok(StagedModels {
            model,
            ensemble,
            spec,
        })
    }

    /// Opens the models; `embeddings` adds the embeddings of the first one to the results.
    pub(super) fn open(
        &self,
        staged: &StagedModels,
        embeddings: bool,
    ) -> Result<Ensemble, ScoreRunError> {
        let model = match &staged.spec {
            Some(spec) => {
                let spec = read_description(spec)?;
                ModelFile::open_staged(&staged.model, Some(spec))?
            }
            None => open_staged_model("--model", &staged.model)?,
        };
        let others = staged.ensemble.iter();
        let others = others.map(|file| open_staged_model("--ensemble", file));
        let mut ensemble = Ensemble::new(model, others.collect::<Result<_, EngineError>>()?)?;
        if let Some(combine) = self.tta {
            ensemble = ensemble.with_tta(combine);
        }
        Ok(if embeddings {
            ensemble.with_embeddings()?
        } else {
            ensemble
        })
    }

    /// Returns what turns the probabilities of `ensemble` into predictions.
    pub(super) fn decision(&self, ensemble: &Ensemble) -> Decision {
        Decision {
            thresholds: self.threshold.for_model(ensemble.spec()),
            keep_argmax: self.keep_argmax,
        }
    }

    /// Describes ensemble and test-time augmentation, if there is any.
    pub(super) fn note(&self) -> Option<String> {
        let mut parts = Vec::new();
        if !self.ensemble.is_empty() {
            let models = 1 + self.ensemble.len();
            parts.push(format!("ensemble: mean probabilities of {models} models"));
            if self.threshold == Threshold::Tuned {
                parts.push("thresholds: mean of the models' thresholds".into());
            }
        }
        if let Some(combine) = self.tta {
            parts.push(format!(
                "test-time augmentation: {combine} over 8 rotations and flips of each image"
            ));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// The TOML description of a model without rgby metadata.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelDescription {
    /// Names, in the order of the outputs.
    classes: Vec<String>,
    /// Stains, in the order of the input channels.
    channels: Vec<String>,
    /// Side of the input in pixels.
    size: u32,
    #[serde(default)]
    resize: Resize,
    /// On the scale 0–1; 0.5 each by default.
    mean: Option<Vec<f32>>,
    /// On the scale 0–1; 0.5 each by default.
    std: Option<Vec<f32>>,
    /// 0.5 each by default.
    thresholds: Option<Vec<f32>>,
}

fn read_description(file: &StagedFile) -> Result<ModelSpec, ScoreRunError> {
    let invalid = |reason: String| ScoreRunError::Description {
        path: file.name().to_owned(),
        reason,
    };
    let text = fs::read_to_string(file.path()).map_err(|error| invalid(error.to_string()))?;
    let description: ModelDescription =
        toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    let mut preprocess = Preprocess::new(&description.channels, description.size);
    preprocess.resize = description.resize;
    preprocess.mean = description.mean.unwrap_or(preprocess.mean);
    preprocess.std = description.std.unwrap_or(preprocess.std);
    let classes = description.classes;
    Ok(ModelSpec {
        arch: "unknown".into(),
        thresholds: description.thresholds.unwrap_or(vec![0.5; classes.len()]),
        classes,
        preprocess,
        provenance: Provenance::default(),
        precision: Precision::Fp32,
        embeddings: None,
    })
}

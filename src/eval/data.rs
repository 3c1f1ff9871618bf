//! Labels and images of an evaluation.

use std::collections::HashSet;
use std::path::PathBuf;

use super::{EvalConfig, EvalError};
use crate::data::{Images, LabelTable, read_labels};
use crate::imaging::Sample;
use crate::model_metadata::ModelSpec;
use crate::score::{ScoreObserver, output};

/// Labels and images of an evaluation.
pub(super) struct EvalData {
    pub labels: PathBuf,
    pub images: Option<Images>,
    /// Evaluate only these samples.
    pub only: Option<HashSet<String>>,
}

impl EvalData {
    /// Returns the labels and images that the config names.
    pub fn from_config(config: &EvalConfig) -> Result<Self, EvalError> {
        let labels = config.labels.clone().ok_or(EvalError::Missing {
            what: "labels",
            flag: "--labels",
        })?;
        Ok(Self {
            labels,
            images: config.images.clone(),
            only: None,
        })
    }

    pub fn images(&self) -> Result<&Images, EvalError> {
        self.images.as_ref().ok_or(EvalError::Missing {
            what: "images of the model",
            flag: "--images",
        })
    }

    /// Reads the labels. At least one sample must have a class.
    pub fn read_labels(
        &self,
        classes: usize,
        observer: &dyn ScoreObserver,
    ) -> Result<LabelTable, EvalError> {
        let mut labels = read_labels(&self.labels, classes)?;
        if let Some(only) = &self.only {
            let rows = labels.ids.into_iter().zip(labels.targets);
            (labels.ids, labels.targets) = rows.filter(|(id, _)| only.contains(id)).unzip();
            let missing = only.len() - labels.ids.len();
            if missing > 0 {
                observer.note(&format!(
                    "labels file {}: {missing} of {} validation samples have no label and are \
                     left out",
                    self.labels.display(),
                    only.len()
                ));
            }
        }
        if labels.targets.iter().all(Vec::is_empty) {
            return Err(EvalError::NoPositives {
                path: self.labels.clone(),
                samples: labels.ids.len(),
            });
        }
        Ok(labels)
    }

    /// Reads the labels of a model's classes, and finds the images of the labelled samples.
    pub fn find_samples(
        &self,
        spec: &ModelSpec,
        observer: &dyn ScoreObserver,
    ) -> Result<(LabelTable, Vec<Sample>), EvalError> {
        let labels = self.read_labels(spec.classes.len(), observer)?;
        let samples = self.images()?.find(&spec.preprocess.stains())?;
        let samples = output::select(samples, &labels.ids);
        Ok((labels, samples))
    }
}

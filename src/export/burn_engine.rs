//! Runs a checkpoint with Burn on the CPU as a scoring engine.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};

use crate::model::{Classifier, WeightTransfer};
use crate::model_metadata::ModelSpec;
use crate::score::{Engine, EngineError, InferenceOutput};
use crate::train::{Checkpoint, CheckpointError};

/// A checkpoint as a scoring engine, without an export.
pub struct BurnEngine {
    classifier: Classifier,
    spec: ModelSpec,
    path: PathBuf,
}

impl BurnEngine {
    /// Loads the weights of the checkpoint in `dir` that an export would use.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if it is missing or damaged.
    pub fn load(dir: &Path) -> Result<Self, CheckpointError> {
        let checkpoint = Checkpoint::open(dir)?;
        let new = Classifier::new(&checkpoint.model, 0, &Device::flex());
        Ok(Self {
            classifier: Checkpoint::load(dir, new, WeightTransfer::All)?,
            spec: checkpoint.spec,
            path: dir.to_owned(),
        })
    }
}

impl Engine for BurnEngine {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError> {
        let fail = |reason: String| EngineError::Run {
            path: self.path.clone(),
            reason,
        };
        let preprocess = &self.spec.preprocess;
        let side = preprocess.size as usize;
        let shape = [batch, preprocess.channels.len(), side, side];
        let expected: usize = shape.iter().product();
        if images.len() != expected {
            let len = images.len();
            return Err(fail(format!(
                "{len} values are not a batch of shape {shape:?}"
            )));
        }
        let input =
            Tensor::<4>::from_data(TensorData::new(images.to_vec(), shape), &Device::flex());
        let output = self.classifier.probabilities(input).into_data();
        let probabilities: Vec<f32> = output.iter::<f32>().collect();
        if let Some(bad) = probabilities.iter().find(|p| !(0.0..=1.0).contains(*p)) {
            return Err(fail(format!(
                "output {bad} is not a probability: the training diverged; use an earlier checkpoint"
            )));
        }
        Ok(InferenceOutput {
            probabilities,
            embeddings: Vec::new(),
        })
    }
}

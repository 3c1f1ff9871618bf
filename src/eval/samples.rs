//! The samples of an evaluation.

use super::EvalError;
use super::predictions::LabelledPredictions;
use crate::metrics::{Decisions, Labelled, with_highest_kept};

/// Samples with both labels and probabilities.
pub(super) struct EvaluatedSamples {
    pub ids: Vec<String>,
    /// The true classes of each sample.
    pub targets: Vec<Vec<u16>>,
    /// `[samples, classes]`, 0–1.
    pub probabilities: Vec<f32>,
    /// `targets` as 0 or 1, `[samples, classes]`.
    truth: Vec<f32>,
    pub classes: usize,
    /// `probabilities` as thresholds are applied to them; `None` if they are the same.
    with_argmax: Option<Vec<f32>>,
}

impl EvaluatedSamples {
    /// Selects the samples of `predictions` that have probabilities and pass `filter`, which takes
    /// the index of a label.
    pub fn select(
        predictions: &LabelledPredictions,
        keep_argmax: bool,
        filter: impl Fn(usize) -> bool,
    ) -> Result<Self, EvalError> {
        let classes = predictions.classes.len();
        let labels = &predictions.labels;
        let mut samples = Self {
            ids: Vec::new(),
            targets: Vec::new(),
            probabilities: Vec::new(),
            truth: Vec::new(),
            classes,
            with_argmax: None,
        };
        for (index, row) in predictions.table.probabilities.iter().enumerate() {
            let Some(row) = row.as_ref().filter(|_| filter(index)) else {
                continue;
            };
            samples.ids.push(labels.ids[index].clone());
            samples.targets.push(labels.targets[index].clone());
            samples.probabilities.extend_from_slice(row);
            let start = samples.truth.len();
            samples.truth.resize(start + classes, 0.0);
            for class in &labels.targets[index] {
                samples.truth[start + usize::from(*class)] = 1.0;
            }
        }
        if let (true, Some(first)) = (samples.ids.is_empty(), predictions.table.failures.first()) {
            return Err(EvalError::NoneEvaluated {
                samples: labels.ids.len(),
                first: first.clone(),
            });
        }
        // Also checks the probabilities.
        samples.data()?;
        samples.with_argmax =
            keep_argmax.then(|| with_highest_kept(&samples.probabilities, classes));
        Ok(samples)
    }

    /// Returns probabilities and truth.
    pub fn data(&self) -> Result<Labelled<'_>, EvalError> {
        Labelled::new(&self.probabilities, &self.truth, self.classes)
            .map_err(EvalError::Probabilities)
    }

    /// Returns truth and the probabilities that thresholds are applied to. With `keep_argmax`, the
    /// highest probability of each sample is 1.
    pub fn decision_data(&self) -> Result<Labelled<'_>, EvalError> {
        let probabilities = self.with_argmax.as_ref().unwrap_or(&self.probabilities);
        Labelled::new(probabilities, &self.truth, self.classes).map_err(EvalError::Probabilities)
    }

    /// Returns the decisions at one threshold per class.
    pub fn decide(&self, thresholds: &[f32]) -> Result<Decisions, EvalError> {
        Ok(Decisions::at(&self.decision_data()?, thresholds))
    }
}

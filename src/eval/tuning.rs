//! Threshold tuning on the labels of the evaluation.

use super::samples::EvaluatedSamples;
use super::{EvalConfig, EvalError, ThresholdTuning};
use crate::data::{LabelTable, read_labels, stratify};
use crate::metrics::{CrossFit, Tuning};

/// The labels from which the class frequencies of [`ThresholdTuning::Ratio`] are computed.
pub(super) struct ClassRatios(LabelTable);

impl ClassRatios {
    /// Reads the labels file, if the config names one.
    pub fn read(config: &EvalConfig) -> Result<Option<Self>, EvalError> {
        let Some(ThresholdTuning::Ratio(path)) = &config.tuning else {
            return Ok(None);
        };
        let labels = read_labels(path, usize::from(u16::MAX)).map_err(EvalError::Ratios)?;
        Ok(Some(Self(labels)))
    }

    /// Returns the share of samples that have each class, 0–1.
    fn shares(&self, classes: usize) -> Result<Vec<f64>, EvalError> {
        let mut counts = vec![0_u32; classes];
        for &class in self.0.targets.iter().flatten() {
            let count = counts.get_mut(usize::from(class));
            *count.ok_or(EvalError::RatioClass {
                class,
                last: classes - 1,
            })? += 1;
        }
        let samples = self.0.ids.len() as f64;
        let shares = counts.iter().map(|&count| f64::from(count) / samples);
        Ok(shares.collect())
    }
}

/// Returns the number of folds for cross-fitting: no fold is empty.
pub(super) fn fold_count(config: &EvalConfig, samples: usize) -> usize {
    config.folds.min(samples)
}

/// Tunes and cross-fits thresholds, if the config demands it.
pub(super) fn tune(
    config: &EvalConfig,
    samples: &EvaluatedSamples,
    ratios: Option<&ClassRatios>,
) -> Result<Option<CrossFit>, EvalError> {
    let Some(method) = &config.tuning else {
        return Ok(None);
    };
    let (count, classes) = (samples.ids.len(), samples.classes);
    if count < 2 {
        return Err(EvalError::TooFewToTune);
    }
    let tuning = match (method, ratios) {
        (ThresholdTuning::Ratio(_), Some(ratios)) => Tuning::Ratio(ratios.shares(classes)?),
        (ThresholdTuning::Global, _) => Tuning::Global,
        _ => Tuning::F1,
    };
    let seed = config.bootstrap.seed;
    let folds = stratify(&samples.targets, classes, fold_count(config, count), seed);
    let data = samples.decision_data()?;
    Ok(Some(CrossFit::new(&data, &tuning, &folds)))
}

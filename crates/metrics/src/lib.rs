//! Multi-label metrics from probabilities and targets, as scikit-learn defines them.
//!
//! - [`Labelled`] pairs probabilities with the truth.
//! - [`Decisions`] are the predicted classes, by thresholds or by fold.
//! - [`evaluate_decisions`] computes the metrics, [`intervals()`] their confidence
//!   intervals.
//! - [`Tuning`] chooses thresholds.
//!
//! Ratios of 0/0 are 0 (`zero_division=0`). All sums are in float64. docs/evaluation.md has the
//! definitions.

mod bootstrap;
mod calibration;
mod cooccurrence;
mod decisions;
mod evaluation;
mod intervals;
mod ranking;
mod tuning;

#[cfg(test)]
mod tests;

pub use bootstrap::Bootstrap;
pub use calibration::{Calibration, CalibrationBin};
pub use cooccurrence::cooccurrence;
pub use decisions::{ClassOutcomes, Decisions};
pub use evaluation::{
    ChanceLevel, ClassMetrics, Evaluation, RARE_SHARE, RareClasses, chance_level, cross_entropy,
    evaluate, evaluate_decisions,
};
pub use intervals::{Difference, Differences, Interval, Intervals, differences, intervals};
pub use ranking::Ranking;
pub use tuning::{CrossFit, Tuning, tune_thresholds};

/// Probabilities and targets of the same samples and classes.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    probabilities: &'a [f32],
    targets: &'a [f32],
    classes: usize,
}

impl<'a> Labelled<'a> {
    /// Pairs `probabilities` (0–1) with `targets` (0 or 1), both `[samples, classes]` in row-major
    /// order.
    ///
    /// # Errors
    ///
    /// The lengths do not match `classes`, or a value is out of range; the message gives its place.
    pub fn new(
        probabilities: &'a [f32],
        targets: &'a [f32],
        classes: usize,
    ) -> Result<Self, String> {
        let (len, target_len) = (probabilities.len(), targets.len());
        if classes == 0 || len != target_len || len % classes != 0 {
            return Err(format!(
                "{len} probabilities and {target_len} targets do not make rows of {classes} classes"
            ));
        }
        let place = |at: usize| format!("sample {}, class {}", at / classes, at % classes);
        if let Some(at) = probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
            return Err(format!(
                "{}: {} is not a probability",
                place(at),
                probabilities[at]
            ));
        }
        #[expect(clippy::float_cmp, reason = "targets are exactly 0 or 1")]
        if let Some(at) = targets.iter().position(|t| *t != 0.0 && *t != 1.0) {
            return Err(format!(
                "{}: the target {} is not 0 or 1",
                place(at),
                targets[at]
            ));
        }
        Ok(Self {
            probabilities,
            targets,
            classes,
        })
    }

    #[must_use]
    pub fn samples(&self) -> usize {
        self.probabilities.len() / self.classes
    }

    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns probability and truth of each class for one sample.
    ///
    /// # Panics
    ///
    /// If `sample` is out of range.
    pub fn row(&self, sample: usize) -> impl Iterator<Item = (f32, bool)> {
        let row = sample * self.classes..(sample + 1) * self.classes;
        let pairs = self.probabilities[row.clone()]
            .iter()
            .zip(&self.targets[row]);
        pairs.map(|(p, t)| (*p, *t > 0.5))
    }

    /// Returns probability and truth of each sample for one class.
    pub fn column(&self, class: usize) -> impl Iterator<Item = (f32, bool)> {
        let pairs = self.probabilities.iter().zip(self.targets);
        pairs
            .skip(class)
            .step_by(self.classes)
            .map(|(p, t)| (*p, *t > 0.5))
    }
}

/// Returns the probabilities `[samples, classes]` with the highest of each sample replaced by 1, so
/// that every threshold lets it pass. Of equal probabilities, the first is replaced.
#[must_use]
pub fn with_highest_kept(probabilities: &[f32], classes: usize) -> Vec<f32> {
    let mut kept = probabilities.to_vec();
    for row in kept.chunks_mut(classes.max(1)) {
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        if let Some(first) = row.iter_mut().find(|p| **p >= highest) {
            *first = 1.0;
        }
    }
    kept
}

fn f1_score(true_positives: usize, false_positives: usize, false_negatives: usize) -> f64 {
    let twice = 2.0 * true_positives as f64;
    ratio(twice, twice + (false_positives + false_negatives) as f64)
}

/// Returns `part / whole`, or 0 if `whole` is 0.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// Returns the mean, or 0 without values.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    ratio(sum, count)
}

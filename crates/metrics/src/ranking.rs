//! Metrics of the order of a class's probabilities: average precision, AUROC, precision-recall curve.

use std::cmp::Ordering;

use super::Labelled;

/// Samples of one class in descending order of probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    pub(super) samples: Vec<RankedSample>,
}

/// A sample with its probability and truth for one class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RankedSample {
    pub probability: f32,
    pub truth: bool,
    pub sample: u32,
}

impl Ranking {
    /// Sorts the samples of `data` by their probability for `class`.
    #[must_use]
    pub fn new(data: &Labelled, class: usize) -> Self {
        let column = data.column(class).enumerate();
        let mut samples: Vec<_> = column
            .map(|(sample, (probability, truth))| RankedSample {
                probability,
                truth,
                sample: sample as u32,
            })
            .collect();
        samples.sort_unstable_by(|a, b| {
            let order = b.probability.total_cmp(&a.probability);
            order.then(a.sample.cmp(&b.sample))
        });
        Self { samples }
    }

    /// Returns the number of samples that have the class.
    #[must_use]
    pub fn positives(&self) -> usize {
        positives_in(&self.samples)
    }

    /// Returns Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct probabilities in descending order, like
    /// scikit-learn's `average_precision_score`; `None` without positives.
    #[must_use]
    pub fn average_precision(&self) -> Option<f64> {
        let positives = self.positives();
        let (mut seen, mut hits, mut area) = (0, 0, 0.0);
        for tie in ties(&self.samples) {
            let new_hits = positives_in(tie);
            seen += tie.len();
            hits += new_hits;
            area += new_hits as f64 * hits as f64 / seen as f64;
        }
        (positives > 0).then(|| area / positives as f64)
    }

    /// Returns the area under the ROC curve, ties counted half, like scikit-learn's
    /// `roc_auc_score`; `None` without positives or without negatives.
    #[must_use]
    pub fn auroc(&self) -> Option<f64> {
        let positives = self.positives();
        let negatives = self.samples.len() - positives;
        let (mut above, mut pairs) = (0, 0.0);
        for tie in ties(&self.samples) {
            let hits = positives_in(tie);
            let others = tie.len() - hits;
            pairs += others as f64 * (above as f64 + hits as f64 / 2.0);
            above += hits;
        }
        (positives > 0 && negatives > 0).then(|| pairs / positives as f64 / negatives as f64)
    }

    /// Returns the precision-recall curve as `(recall, precision)` points by descending threshold.
    ///
    /// More than about `max_points` are thinned. Empty without positives.
    #[must_use]
    pub fn precision_recall(&self, max_points: usize) -> Vec<(f64, f64)> {
        let positives = self.positives();
        if positives == 0 {
            return Vec::new();
        }
        let (mut seen, mut hits, mut last) = (0, 0, 0.0_f64);
        let mut points: Vec<(f64, f64)> = Vec::new();
        for tie in ties(&self.samples) {
            seen += tie.len();
            hits += positives_in(tie);
            let recall = hits as f64 / positives as f64;
            // Points without recall, or less than one step after the last, are omitted.
            let step = recall - last;
            if hits > 0
                && (points.is_empty() || step >= 1.0 / max_points as f64 || hits == positives)
            {
                points.push((recall, hits as f64 / seen as f64));
                last = recall;
            }
            if hits == positives {
                break;
            }
        }
        points
    }
}

/// Returns the groups of equal probability.
pub(super) fn ties(samples: &[RankedSample]) -> impl Iterator<Item = &[RankedSample]> {
    // 0 and −0 are equal, unlike in `total_cmp`.
    samples.chunk_by(|a, b| a.probability.partial_cmp(&b.probability) == Some(Ordering::Equal))
}

pub(super) fn positives_in(samples: &[RankedSample]) -> usize {
    samples.iter().filter(|sample| sample.truth).count()
}

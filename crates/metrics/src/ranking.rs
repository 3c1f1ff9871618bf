//! What follows from the order of a class's probabilities: average precision, the areas under the
//! curves, and the curves.

use std::cmp::Ordering;

use super::Labelled;

/// One class's samples by probability, the highest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    pub(super) samples: Vec<Ranked>,
}

/// A sample in its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Ranked {
    pub probability: f32,
    pub truth: bool,
    pub sample: u32,
}

impl Ranking {
    /// Ranks the samples of `data` by their probability of `class`.
    #[must_use]
    pub fn new(data: &Labelled, class: usize) -> Self {
        let column = data.column(class).enumerate();
        let mut samples: Vec<_> = column
            .map(|(sample, (probability, truth))| Ranked {
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

    /// Number of samples that have the class.
    #[must_use]
    pub fn positives(&self) -> usize {
        positives_in(&self.samples)
    }

    /// Σ (Rₙ − Rₙ₋₁) Pₙ over the distinct probabilities from high to low, as scikit-learn's
    /// `average_precision_score`; `None` for a class without positives.
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

    /// Area under the ROC curve, ties counted half, as scikit-learn's `roc_auc_score`; `None` for
    /// a class that no sample or every sample has.
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

    /// The precision-recall curve from high probabilities to low: recall and precision at each
    /// distinct probability, thinned to about `most` points where there are more; empty for a
    /// class without positives.
    #[must_use]
    pub fn precision_recall(&self, most: usize) -> Vec<(f64, f64)> {
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
            // Without a hit there is no recall, and a point over the last one says nothing.
            let step = recall - last;
            if hits > 0 && (points.is_empty() || step >= 1.0 / most as f64 || hits == positives) {
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

/// Runs of equal probability.
pub(super) fn ties(ranked: &[Ranked]) -> impl Iterator<Item = &[Ranked]> {
    // 0 and −0 are one probability.
    ranked.chunk_by(|a, b| a.probability.partial_cmp(&b.probability) == Some(Ordering::Equal))
}

pub(super) fn positives_in(ranked: &[Ranked]) -> usize {
    ranked.iter().filter(|ranked| ranked.truth).count()
}

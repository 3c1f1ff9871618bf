//! Threshold tuning, and cross-fitted decisions that evaluate it without optimism.
//!
//! A threshold lies half-way between the lowest probability that passes and the next lower one.

use rayon::prelude::*;

use super::ranking::{RankedSample, positives_in, ties};
use super::{Decisions, Labelled, Ranking, f1_score};

/// Threshold of a class without positives.
const DEFAULT: f32 = 0.5;

/// Method of choosing thresholds.
#[derive(Debug, Clone, PartialEq)]
pub enum Tuning {
    /// Maximizes the F1 of each class. Of equally good thresholds, the highest is chosen; a class
    /// without positives has 0.5.
    F1,
    /// Maximizes the macro-F1 with one threshold for all classes. Of equally good thresholds, the
    /// highest is chosen; 0.5 if no class has positives.
    Global,
    /// Predicts each class for this share (0–1) of the samples, as closely as ties allow. Of equally
    /// close thresholds, the highest is chosen. Labels are not used.
    Ratio(Vec<f64>),
}

impl Tuning {
    /// Returns the tuned thresholds for `data`, one per class, 0–1.
    ///
    /// # Panics
    ///
    /// If the number of ratios differs from the number of classes.
    #[must_use]
    pub fn thresholds(&self, data: &Labelled) -> Vec<f32> {
        self.tune(&rankings(data))
    }

    fn tune(&self, rankings: &[Ranking]) -> Vec<f32> {
        match self {
            Self::F1 => rankings.par_iter().map(best_threshold).collect(),
            Self::Global => vec![best_for_all(rankings); rankings.len()],
            Self::Ratio(ratios) => {
                assert_eq!(ratios.len(), rankings.len(), "one ratio per class");
                let pairs = rankings.par_iter().zip(ratios);
                pairs.map(|(r, ratio)| threshold_at(r, *ratio)).collect()
            }
        }
    }
}

/// Returns the thresholds of [`Tuning::F1`].
#[must_use]
pub fn tune_thresholds(data: &Labelled) -> Vec<f32> {
    Tuning::F1.thresholds(data)
}

/// Tuned thresholds, and cross-fitted decisions.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossFit {
    /// Tuned on all samples, one per class; for use on other samples.
    pub thresholds: Vec<f32>,
    /// Decisions of [`thresholds`](Self::thresholds) on the samples that they were tuned on.
    pub apparent: Decisions,
    /// Decisions on each sample by thresholds tuned on the other folds.
    pub cross_fitted: Decisions,
}

impl CrossFit {
    /// Tunes on all samples, and on all samples except those of each fold.
    ///
    /// `folds` is the fold of each sample, from 0. For the option `keep_argmax`, `data` holds the
    /// result of [`with_highest_kept`](super::with_highest_kept).
    ///
    /// # Panics
    ///
    /// If the number of folds differs from the number of samples.
    #[must_use]
    pub fn new(data: &Labelled, tuning: &Tuning, folds: &[usize]) -> Self {
        let rankings = rankings(data);
        let thresholds = tuning.tune(&rankings);
        let count = folds.iter().max().map_or(0, |last| last + 1);
        let without = |fold: usize| {
            let rest = rankings.iter().map(|ranking| Ranking {
                samples: ranking
                    .samples
                    .iter()
                    .filter(|entry| folds[entry.sample as usize] != fold)
                    .copied()
                    .collect(),
            });
            tuning.tune(&rest.collect::<Vec<_>>())
        };
        let by_fold: Vec<_> = (0..count).map(without).collect();
        Self {
            apparent: Decisions::at(data, &thresholds),
            cross_fitted: Decisions::by_fold(data, folds, &by_fold),
            thresholds,
        }
    }
}

fn rankings(data: &Labelled) -> Vec<Ranking> {
    let classes = (0..data.classes()).into_par_iter();
    classes.map(|class| Ranking::new(data, class)).collect()
}

fn best_threshold(ranking: &Ranking) -> f32 {
    let ranked = &ranking.samples;
    let positives = positives_in(ranked);
    let (mut seen, mut hits) = (0, 0);
    let (mut best, mut threshold) = (0.0, DEFAULT);
    for tie in ties(ranked) {
        seen += tie.len();
        hits += positives_in(tie);
        let f1 = f1_score(hits, seen - hits, positives - hits);
        if f1 > best {
            let next = ranked.get(seen).map_or(0.0, |next| next.probability);
            (best, threshold) = (f1, between(tie[0].probability, next));
        }
    }
    threshold
}

/// Visits the probabilities of all classes in descending order, and updates the macro-F1 with each.
fn best_for_all(rankings: &[Ranking]) -> f32 {
    let with_class = rankings.iter().enumerate().flat_map(|(class, ranking)| {
        let samples = ranking.samples.iter();
        samples.map(move |ranked| (*ranked, class))
    });
    let mut all: Vec<(RankedSample, usize)> = with_class.collect();
    all.par_sort_unstable_by(|a, b| b.0.probability.total_cmp(&a.0.probability));
    let positives: Vec<usize> = rankings.iter().map(Ranking::positives).collect();
    let mut counts = vec![(0_usize, 0_usize); rankings.len()];
    let mut f1 = vec![0.0; rankings.len()];
    let (mut sum, mut best, mut threshold) = (0.0, 0.0, DEFAULT);
    for (at, (ranked, class)) in all.iter().enumerate() {
        let (seen, hits) = &mut counts[*class];
        *seen += 1;
        *hits += usize::from(ranked.truth);
        let new = f1_score(*hits, *seen - *hits, positives[*class] - *hits);
        sum += new - f1[*class];
        f1[*class] = new;
        let next = all.get(at + 1).map(|(next, _)| next.probability);
        let ends_tie = next.is_none_or(|next| next < ranked.probability);
        // Rounding of the running sum must not count as an improvement.
        if ends_tie && sum > best + 1e-9 {
            (best, threshold) = (sum, between(ranked.probability, next.unwrap_or(0.0)));
        }
    }
    threshold
}

fn threshold_at(ranking: &Ranking, ratio: f64) -> f32 {
    let ranked = &ranking.samples;
    let target = ratio * ranked.len() as f64;
    let Some(first) = ranked.first() else {
        return DEFAULT;
    };
    // A threshold above the highest probability predicts nothing, but a threshold is at most 1.
    let none = (first.probability < 1.0).then(|| between(1.0, first.probability));
    let (mut seen, mut nearest) = (0, none.map_or(f64::INFINITY, |_| target));
    let mut threshold = none.unwrap_or(1.0);
    for tie in ties(ranked) {
        seen += tie.len();
        let distance = (seen as f64 - target).abs();
        if distance < nearest {
            let next = ranked.get(seen).map_or(0.0, |next| next.probability);
            (nearest, threshold) = (distance, between(tie[0].probability, next));
        }
    }
    threshold
}

/// Returns a threshold in `(next, lowest]`: half-way between the lowest probability that passes and
/// the next lower one. Adjacent floats have no middle; then it is `lowest`.
fn between(lowest: f32, next: f32) -> f32 {
    let middle = f32::midpoint(lowest, next);
    if middle > next { middle } else { lowest }
}

#[cfg(test)]
mod tests {
    use super::super::evaluate;
    use super::*;

    #[test]
    fn separates_adjacent_floats() {
        let low = 0.3_f32;
        let high = low.next_up();
        let probabilities = [low, high];
        let data = Labelled::new(&probabilities, &[0.0, 1.0], 1).unwrap();
        assert_eq!(tune_thresholds(&data), [high]);
        assert!((evaluate(&data, &[high]).macro_f1 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn ratio_sets_the_number_of_predictions() {
        let probabilities = [0.9, 0.8, 0.8, 0.4, 0.2];
        let data = Labelled::new(&probabilities, &[0.0; 5], 1).unwrap();
        for (ratio, predicted) in [
            (0.0, 0),
            (0.2, 1),
            (0.35, 1), // 1 or 3: 1 is nearer to 1.75
            (0.6, 3),
            (0.8, 4),
            (1.0, 5),
        ] {
            let thresholds = Tuning::Ratio(vec![ratio]).thresholds(&data);
            let passed = probabilities.iter().filter(|p| **p >= thresholds[0]);
            assert_eq!(passed.count(), predicted, "{ratio}: {thresholds:?}");
        }
        // A sample at probability 1 passes every threshold.
        let data = Labelled::new(&[1.0, 1.0, 0.5], &[0.0; 3], 1).unwrap();
        assert_eq!(Tuning::Ratio(vec![0.0]).thresholds(&data), [0.75]);
    }

    #[test]
    fn global_threshold_maximizes_macro_f1() {
        let probabilities = [0.9, 0.1, 0.6, 0.35, 0.4, 0.3, 0.2, 0.05];
        let targets = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0];
        let data = Labelled::new(&probabilities, &targets, 2).unwrap();
        let found = Tuning::Global.thresholds(&data);
        let score = |t: f32| evaluate(&data, &[t; 2]).macro_f1;
        let best = (0..=1000).map(|t| score(t as f32 / 1000.0));
        let best = best.fold(0.0, f64::max);
        assert!((score(found[0]) - best).abs() < 1e-12, "{found:?} {best}");
        assert_eq!(found, [found[0]; 2]);
    }

    #[test]
    fn cross_fitting_removes_optimism_on_noise() {
        // The probabilities are independent of the labels, so any gain from tuning is chance.
        let n = 60;
        let probabilities: Vec<f32> = (0..n).map(|i| (i * 37 % 60) as f32 / 60.0).collect();
        let targets: Vec<f32> = (0..n).map(|i| f32::from(i * 7 % 10 == 0)).collect();
        let data = Labelled::new(&probabilities, &targets, 1).unwrap();
        let folds: Vec<usize> = (0..n).map(|i| i / 6 % 5).collect();
        let fit = CrossFit::new(&data, &Tuning::F1, &folds);
        let f1 = |decisions| {
            super::super::evaluate_decisions(&data, decisions, &fit.thresholds).macro_f1
        };
        assert!(f1(&fit.apparent) > f1(&fit.cross_fitted), "{fit:?}");
        assert_eq!(fit.apparent, Decisions::at(&data, &fit.thresholds));
    }
}

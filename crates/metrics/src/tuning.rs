//! Thresholds from data, and an honest score of them.
//!
//! A threshold lies half-way between the lowest probability that it lets pass and the next lower
//! one.

use rayon::prelude::*;

use super::ranking::{Ranked, positives_in, ties};
use super::{Decisions, Labelled, Ranking, f1_score};

/// The threshold of a class about which the data say nothing.
const UNKNOWN: f32 = 0.5;

/// How thresholds are chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Tuning {
    /// The highest F1 of each class; of equally good thresholds the highest. A class without
    /// positives keeps 0.5.
    F1,
    /// One threshold for all classes, with the highest macro-F1; of equally good ones the highest.
    /// 0.5 where no class has positives.
    Global,
    /// Each class is predicted for this share of the samples, as near as ties allow; of equally
    /// near thresholds the highest. Labels are not looked at.
    Ratio(Vec<f64>),
}

impl Tuning {
    /// The thresholds that `data` ask for, one a class, 0–1.
    ///
    /// # Panics
    ///
    /// If there is not one ratio for each class.
    #[must_use]
    pub fn thresholds(&self, data: &Labelled) -> Vec<f32> {
        self.of(&rankings(data))
    }

    fn of(&self, rankings: &[Ranking]) -> Vec<f32> {
        match self {
            Self::F1 => rankings.par_iter().map(best_threshold).collect(),
            Self::Global => vec![best_for_all(rankings); rankings.len()],
            Self::Ratio(ratios) => {
                assert_eq!(ratios.len(), rankings.len(), "one ratio a class");
                let pairs = rankings.par_iter().zip(ratios);
                pairs.map(|(r, ratio)| threshold_at(r, *ratio)).collect()
            }
        }
    }
}

/// The thresholds of [`Tuning::F1`].
#[must_use]
pub fn tune_thresholds(data: &Labelled) -> Vec<f32> {
    Tuning::F1.thresholds(data)
}

/// Tuned thresholds, and what they decide where they were not tuned.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossFit {
    /// Tuned on all samples: for use on others.
    pub thresholds: Vec<f32>,
    /// What [`thresholds`](Self::thresholds) decide on the samples that they were tuned on.
    pub apparent: Decisions,
    /// Each sample decided by thresholds that were tuned on the other folds.
    pub cross_fitted: Decisions,
}

impl CrossFit {
    /// Tunes on all samples, and on all but each fold. `folds` is the fold of each sample, from 0;
    /// `data` are what is decided by, see [`with_highest_kept`](super::with_highest_kept).
    ///
    /// # Panics
    ///
    /// If there is not one fold for each sample.
    #[must_use]
    pub fn new(data: &Labelled, tuning: &Tuning, folds: &[usize]) -> Self {
        let rankings = rankings(data);
        let thresholds = tuning.of(&rankings);
        let count = folds.iter().max().map_or(0, |last| last + 1);
        let without = |fold: usize| {
            let rest = rankings.iter().map(|ranking| Ranking {
                samples: ranking
                    .samples
                    .iter()
                    .filter(|ranked| folds[ranked.sample as usize] != fold)
                    .copied()
                    .collect(),
            });
            tuning.of(&rest.collect::<Vec<_>>())
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
    let (mut best, mut threshold) = (0.0, UNKNOWN);
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

/// Goes through the probabilities of all classes from high to low.
fn best_for_all(rankings: &[Ranking]) -> f32 {
    let with_class = rankings.iter().enumerate().flat_map(|(class, ranking)| {
        let samples = ranking.samples.iter();
        samples.map(move |ranked| (*ranked, class))
    });
    let mut all: Vec<(Ranked, usize)> = with_class.collect();
    all.par_sort_unstable_by(|a, b| b.0.probability.total_cmp(&a.0.probability));
    let positives: Vec<usize> = rankings.iter().map(Ranking::positives).collect();
    let mut counts = vec![(0_usize, 0_usize); rankings.len()];
    let mut f1 = vec![0.0; rankings.len()];
    let (mut sum, mut best, mut threshold) = (0.0, 0.0, UNKNOWN);
    for (at, (ranked, class)) in all.iter().enumerate() {
        let (seen, hits) = &mut counts[*class];
        *seen += 1;
        *hits += usize::from(ranked.truth);
        let new = f1_score(*hits, *seen - *hits, positives[*class] - *hits);
        sum += new - f1[*class];
        f1[*class] = new;
        let next = all.get(at + 1).map(|(next, _)| next.probability);
        let ends_tie = next.is_none_or(|next| next < ranked.probability);
        // Rounding of the running sum must not look like a better threshold.
        if ends_tie && sum > best + 1e-9 {
            (best, threshold) = (sum, between(ranked.probability, next.unwrap_or(0.0)));
        }
    }
    threshold
}

fn threshold_at(ranking: &Ranking, ratio: f64) -> f32 {
    let ranked = &ranking.samples;
    let wanted = ratio * ranked.len() as f64;
    let Some(first) = ranked.first() else {
        return UNKNOWN;
    };
    // Above the highest probability nothing is predicted; above 1 there is no threshold.
    let none = (first.probability < 1.0).then(|| between(1.0, first.probability));
    let (mut seen, mut nearest) = (0, none.map_or(f64::INFINITY, |_| wanted));
    let mut threshold = none.unwrap_or(1.0);
    for tie in ties(ranked) {
        seen += tie.len();
        let off = (seen as f64 - wanted).abs();
        if off < nearest {
            let next = ranked.get(seen).map_or(0.0, |next| next.probability);
            (nearest, threshold) = (off, between(tie[0].probability, next));
        }
    }
    threshold
}

/// A number in `(next, lowest]`: half-way between the lowest probability that passes and the next
/// lower one, or the former where neighbouring floats have no middle.
fn between(lowest: f32, next: f32) -> f32 {
    let middle = f32::midpoint(lowest, next);
    if middle > next { middle } else { lowest }
}

#[cfg(test)]
mod tests {
    use super::super::evaluate;
    use super::*;

    #[test]
    fn tuning_separates_neighbouring_floats() {
        let low = 0.3_f32;
        let high = low.next_up();
        let probabilities = [low, high];
        let data = Labelled::new(&probabilities, &[0.0, 1.0], 1).unwrap();
        assert_eq!(tune_thresholds(&data), [high]);
        assert!((evaluate(&data, &[high]).macro_f1 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn ratios_decide_how_many_are_predicted() {
        let probabilities = [0.9, 0.8, 0.8, 0.4, 0.2];
        let data = Labelled::new(&probabilities, &[0.0; 5], 1).unwrap();
        for (ratio, predicted) in [
            (0.0, 0),
            (0.2, 1),
            (0.35, 1), // one or three: the nearer
            (0.6, 3),
            (0.8, 4),
            (1.0, 5),
        ] {
            let thresholds = Tuning::Ratio(vec![ratio]).thresholds(&data);
            let passed = probabilities.iter().filter(|p| **p >= thresholds[0]);
            assert_eq!(passed.count(), predicted, "{ratio}: {thresholds:?}");
        }
        // Where even the highest threshold lets some pass.
        let data = Labelled::new(&[1.0, 1.0, 0.5], &[0.0; 3], 1).unwrap();
        assert_eq!(Tuning::Ratio(vec![0.0]).thresholds(&data), [0.75]);
    }

    #[test]
    fn one_threshold_for_all_maximises_the_mean() {
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
    fn noise_has_optimism_and_cross_fitting_sees_it() {
        // Probabilities that know nothing: whatever tuning finds is chance.
        let n = 60;
        let probabilities: Vec<f32> = (0..n).map(|i| (i * 37 % 60) as f32 / 60.0).collect();
        let targets: Vec<f32> = (0..n).map(|i| f32::from(i * 7 % 10 == 0)).collect();
        let data = Labelled::new(&probabilities, &targets, 1).unwrap();
        let folds: Vec<usize> = (0..n).map(|i| i / 6 % 5).collect();
        let fit = CrossFit::new(&data, &Tuning::F1, &folds);
        let f1 = |decisions| super::super::judge(&data, decisions, &fit.thresholds).macro_f1;
        assert!(f1(&fit.apparent) > f1(&fit.cross_fitted), "{fit:?}");
        assert_eq!(fit.apparent, Decisions::at(&data, &fit.thresholds));
    }
}

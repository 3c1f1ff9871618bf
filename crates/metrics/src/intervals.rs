//! 95 % confidence intervals.
//!
//! Macro-F1, micro-F1 and differences use a bootstrap over samples; the F1 of a class uses Wilson's
//! interval. docs/evaluation.md gives the reasons.

use serde::{Serialize, Serializer};

use super::bootstrap::F1Scores;
use super::{Bootstrap, ClassOutcomes, Decisions};

/// The 0.975 quantile of the standard normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A 95 % confidence interval, both ends included. Serialized as `[low, high]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// Returns whether the interval contains `value`.
    #[must_use]
    pub fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.low, self.high].serialize(serializer)
    }
}

/// Confidence intervals of one set of decisions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Intervals {
    pub macro_f1: Interval,
    pub micro_f1: Interval,
    /// F1 of each class.
    pub classes: Vec<Interval>,
}

/// Difference of two scores, with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Score of `b` minus score of `a`.
    pub difference: f64,
    pub interval: Interval,
}

/// Differences of two sets of decisions on the same samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Differences {
    pub macro_f1: Difference,
    pub micro_f1: Difference,
    /// F1 of each class.
    pub classes: Vec<Difference>,
}

/// Returns the confidence intervals of several sets of decisions on the same samples.
///
/// `None` with fewer than two samples or draws.
#[must_use]
pub fn intervals(sets: &[&Decisions], bootstrap: &Bootstrap) -> Option<Vec<Intervals>> {
    if sets.first()?.samples() < 2 || bootstrap.draws < 2 {
        return None;
    }
    let draws = bootstrap.scores(sets);
    let intervals_of = |(number, set): (usize, &&Decisions)| {
        let observed = F1Scores::observed(set);
        let interval = |score: fn(&F1Scores) -> f64| {
            let resampled = draws.iter().map(|draw| score(&draw[number]));
            bootstrap_interval(resampled, score(&observed), 0.0)
        };
        Intervals {
            macro_f1: interval(|scores| scores.macro_f1),
            micro_f1: interval(|scores| scores.micro_f1),
            classes: set.classes().iter().map(class_interval).collect(),
        }
    };
    Some(sets.iter().enumerate().map(intervals_of).collect())
}

/// Returns the differences `b` − `a` of two sets of decisions on the same samples.
///
/// `None` with fewer than two samples or draws.
#[must_use]
pub fn differences(a: &Decisions, b: &Decisions, bootstrap: &Bootstrap) -> Option<Differences> {
    if a.samples() < 2 || bootstrap.draws < 2 {
        return None;
    }
    let draws = bootstrap.scores(&[a, b]);
    let observed = [a, b].map(F1Scores::observed);
    let difference = |score: &dyn Fn(&F1Scores) -> f64| {
        let difference = score(&observed[1]) - score(&observed[0]);
        let resampled = draws.iter().map(|draw| score(&draw[1]) - score(&draw[0]));
        Difference {
            difference,
            interval: bootstrap_interval(resampled, difference, -1.0),
        }
    };
    let classes = 0..a.classes().len();
    Some(Differences {
        macro_f1: difference(&|scores| scores.macro_f1),
        micro_f1: difference(&|scores| scores.micro_f1),
        classes: classes
            .map(|class| difference(&|scores| scores.classes[class]))
            .collect(),
    })
}

/// Returns Wilson's interval of a class's F1.
///
/// Among the `m` true positives, false positives and false negatives, the true positives are
/// binomial. Their probability is the Jaccard index J. F1 = 2J / (1 + J) increases with J, so
/// Wilson's interval of J (1927) transforms to F1. A class with m = 0 has the interval 0–1.
fn class_interval(outcomes: &ClassOutcomes) -> Interval {
    let [tp, fp, fn_] = outcomes.counts();
    let m = (tp + fp + fn_) as f64;
    if m < 1.0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let (share, z2) = (tp as f64 / m, Z * Z / m);
    let centre = (share + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (share * (1.0 - share) / m + z2 / (4.0 * m)).sqrt();
    let f1 = |jaccard: f64| {
        let jaccard = jaccard.clamp(0.0, 1.0);
        2.0 * jaccard / (1.0 + jaccard)
    };
    Interval {
        low: f1(centre - half),
        high: f1(centre + half),
    }
}

/// Returns the bias-corrected normal interval of bootstrap draws.
///
/// It is the observed value minus the mean bias of the draws, ± 1.96 of their standard deviations
/// (A. C. Davison and D. V. Hinkley, "Bootstrap Methods and their Application", 1997, section 5.2).
/// It is widened to contain the observed value and clipped to `lowest`–1.
fn bootstrap_interval(
    draws: impl Iterator<Item = f64> + Clone,
    observed: f64,
    lowest: f64,
) -> Interval {
    let (sum, count) = draws
        .clone()
        .fold((0.0, 0.0), |(sum, count), draw| (sum + draw, count + 1.0));
    let average = sum / count;
    let squares: f64 = draws.map(|draw| (draw - average).powi(2)).sum();
    let half = Z * (squares / (count - 1.0)).sqrt();
    let corrected = 2.0 * observed - average;
    Interval {
        low: (corrected - half).min(observed).max(lowest),
        high: (corrected + half).max(observed).min(1.0),
    }
}

#[cfg(test)]
mod tests;

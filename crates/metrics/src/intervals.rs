//! Confidence intervals of 95 %: of macro- and micro-F1 and of differences by bootstrap over the
//! samples, of a class's F1 by Wilson's interval. docs/evaluation.md says why these.

use serde::{Serialize, Serializer};

use super::bootstrap::Scores;
use super::{Bootstrap, Decisions, Outcomes};

/// The normal quantile of 0.975.
const Z: f64 = 1.959_963_984_540_054;

/// Where a value may well lie, both ends included. In JSON `[low, high]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Interval {
    /// Whether `value` lies in it.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.low, self.high].serialize(serializer)
    }
}

/// Intervals of one set of decisions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Intervals {
    /// Of the macro-F1.
    pub macro_f1: Interval,
    /// Of the micro-F1.
    pub micro_f1: Interval,
    /// Of each class's F1.
    pub classes: Vec<Interval>,
}

/// How much better `b` is than `a`, and the interval of that.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// `b`'s score less `a`'s.
    pub difference: f64,
    /// Where it may well lie.
    pub interval: Interval,
}

/// How much better one set of decisions is than another on the same samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Differences {
    /// In macro-F1.
    pub macro_f1: Difference,
    /// In micro-F1.
    pub micro_f1: Difference,
    /// In each class's F1.
    pub classes: Vec<Difference>,
}

/// The intervals of several sets of decisions on the same samples, or `None` where there are fewer
/// than two samples or draws to tell anything by.
#[must_use]
pub fn intervals(sets: &[&Decisions], bootstrap: &Bootstrap) -> Option<Vec<Intervals>> {
    if sets.first()?.samples() < 2 || bootstrap.draws < 2 {
        return None;
    }
    let draws = bootstrap.scores(sets);
    let of = |(number, set): (usize, &&Decisions)| {
        let whole = Scores::whole(set);
        let interval = |score: fn(&Scores) -> f64| {
            let found = draws.iter().map(|draw| score(&draw[number]));
            bootstrap_interval(found, score(&whole), 0.0)
        };
        Intervals {
            macro_f1: interval(|scores| scores.macro_f1),
            micro_f1: interval(|scores| scores.micro_f1),
            classes: set.classes().iter().map(class_interval).collect(),
        }
    };
    Some(sets.iter().enumerate().map(of).collect())
}

/// How much better `b` is than `a`, which decide about the same samples; `None` as
/// [`intervals`].
#[must_use]
pub fn differences(a: &Decisions, b: &Decisions, bootstrap: &Bootstrap) -> Option<Differences> {
    if a.samples() < 2 || bootstrap.draws < 2 {
        return None;
    }
    let draws = bootstrap.scores(&[a, b]);
    let whole = [Scores::whole(a), Scores::whole(b)];
    let difference = |score: &dyn Fn(&Scores) -> f64| {
        let difference = score(&whole[1]) - score(&whole[0]);
        let found = draws.iter().map(|draw| score(&draw[1]) - score(&draw[0]));
        Difference {
            difference,
            interval: bootstrap_interval(found, difference, -1.0),
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

/// Wilson's interval of a class's F1.
///
/// Of the `m` samples that are hits, false alarms or misses, the hits are binomial with the
/// Jaccard index J as their probability, and F1 = 2J / (1 + J) rises with J: so the interval of J
/// (Wilson 1927) becomes that of F1. A class of which nothing was seen may have any F1.
fn class_interval(outcomes: &Outcomes) -> Interval {
    let hits = outcomes.hits.len() as f64;
    let m = hits + (outcomes.false_alarms.len() + outcomes.misses.len()) as f64;
    if m < 1.0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let (share, z2) = (hits / m, Z * Z / m);
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

/// The bias-corrected normal interval from bootstrap draws (A. C. Davison and D. V. Hinkley,
/// "Bootstrap Methods and their Application", 1997, section 5.2): the observed value, less what the
/// draws are off on average, and 1.96 of their standard deviations to both sides. It is made to hold
/// the observed value, and cut off at `lowest` and at 1.
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

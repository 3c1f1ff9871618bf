//! Confidence intervals of 95 %: of macro- and micro-F1 and of differences by bootstrap over the
//! samples, of a class's F1 by Wilson's interval. docs/evaluation.md says why these.

use std::f64::consts::SQRT_2;

use serde::{Serialize, Serializer};

use super::bootstrap::{Jackknife, Scores, class_change};
use super::{Bootstrap, Decisions, Outcomes, ratio};

/// The normal quantile of 0.975.
const Z: f64 = 1.959_963_984_540_054;
/// The ends of the interval, as quantiles of a normal distribution.
const ENDS: [f64; 2] = [-Z, Z];

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
        let (whole, jackknife) = (Scores::whole(set), Jackknife::new(set));
        let drawn = |score: fn(&Scores) -> f64| draws.iter().map(move |draw| score(&draw[number]));
        Intervals {
            macro_f1: bca(
                drawn(|s| s.macro_f1).collect(),
                whole.macro_f1,
                acceleration(jackknife.macro_f1.iter().copied()),
            ),
            micro_f1: bca(
                drawn(|s| s.micro_f1).collect(),
                whole.micro_f1,
                acceleration(jackknife.micro_f1.iter().copied()),
            ),
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
    let jackknife = [Jackknife::new(a), Jackknife::new(b)];
    let difference = |score: &dyn Fn(&Scores) -> f64, acceleration: f64| {
        let difference = score(&whole[1]) - score(&whole[0]);
        let drawn = draws.iter().map(|draw| score(&draw[1]) - score(&draw[0]));
        Difference {
            difference,
            interval: bca(drawn.collect(), difference, acceleration),
        }
    };
    let gaps = |of: fn(&Jackknife) -> &Vec<f64>| {
        let pairs = of(&jackknife[1]).iter().zip(of(&jackknife[0]));
        acceleration(pairs.map(|(b, a)| b - a))
    };
    let class = |class: usize| {
        let changes = class_changes([a, b].map(|set| &set.classes()[class]), a.samples());
        difference(
            &move |s| s.classes[class],
            acceleration(changes.into_iter()),
        )
    };
    Some(Differences {
        macro_f1: difference(&|s| s.macro_f1, gaps(|j| &j.macro_f1)),
        micro_f1: difference(&|s| s.micro_f1, gaps(|j| &j.micro_f1)),
        classes: (0..a.classes().len()).map(class).collect(),
    })
}

/// How the difference of a class's F1 changes without each sample.
fn class_changes(pair: [&Outcomes; 2], samples: usize) -> Vec<f64> {
    let mut changes = vec![0.0; samples];
    for (outcomes, sign) in pair.into_iter().zip([-1.0, 1.0]) {
        let lists = [&outcomes.hits, &outcomes.false_alarms, &outcomes.misses];
        let counts = lists.map(Vec::len);
        for (of, list) in lists.into_iter().enumerate() {
            let change = sign * class_change(counts, of);
            for &sample in list {
                changes[sample as usize] += change;
            }
        }
    }
    changes
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

/// Bias-corrected and accelerated interval from bootstrap draws: B. Efron, "Better Bootstrap
/// Confidence Intervals", 1987.
fn bca(mut draws: Vec<f64>, observed: f64, acceleration: f64) -> Interval {
    draws.sort_unstable_by(f64::total_cmp);
    let below = draws.partition_point(|draw| *draw < observed) as f64;
    let at_most = draws.partition_point(|draw| *draw <= observed) as f64;
    // Draws that equal the observed value count half. All or none below it would be an infinite
    // bias; more draws would have shown some.
    let count = draws.len() as f64;
    let share = f64::midpoint(below, at_most) / count;
    let bias = normal_quantile(share.clamp(0.5 / count, 1.0 - 0.5 / count));
    let [low, high] = ENDS.map(|z| {
        let shifted = bias + z;
        quantile(
            &draws,
            normal_cdf(bias + shifted / (1.0 - acceleration * shifted)),
        )
    });
    Interval { low, high }
}

/// How fast the spread changes with the value, from the changes without each sample; 0 where
/// nothing changes.
fn acceleration(changes: impl Iterator<Item = f64> + Clone) -> f64 {
    let (sum, count) = changes
        .clone()
        .fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    let mean = ratio(sum, count);
    let (squares, cubes) = changes.fold((0.0, 0.0), |(squares, cubes), change| {
        let off: f64 = mean - change;
        (squares + off * off, cubes + off * off * off)
    });
    ratio(cubes, 6.0 * f64::powf(squares, 1.5))
}

/// Linear between the sorted values, as numpy's `quantile`.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (place - place.floor())
}

fn normal_cdf(x: f64) -> f64 {
    libm::erfc(-x / SQRT_2) / 2.0
}

/// By halving: it is asked for a few times only.
fn normal_quantile(share: f64) -> f64 {
    let (mut low, mut high) = (-10.0, 10.0);
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        if normal_cdf(middle) < share {
            low = middle;
        } else {
            high = middle;
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests;

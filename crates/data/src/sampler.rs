//! Passes over the training samples in which rare classes come more often.

use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::Dataset;
use super::random::{Purpose, generator};

/// How a pass over the training samples is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// Each sample once, in a new order each pass.
    #[default]
    Shuffle,
    /// Samples of rare classes more than once: repeat factor sampling, see [`repeat_factors`].
    Balanced,
}

/// How often each of the samples `indices` comes in a balanced pass, on average; in the order of
/// `indices`.
///
/// Repeat factor sampling: Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary
/// Instance Segmentation", 2019, section 4. With `f(c)` the share of `indices` that carry class
/// `c`, a class has the factor `max(1, √(threshold / f(c)))`, and a sample the largest factor of
/// its classes. So classes that are rarer than `threshold` are repeated, all others are left as
/// they are. A sample without a class has the factor 1.
///
/// # Panics
///
/// If `dataset` does not have one of the samples.
#[must_use]
pub fn repeat_factors(dataset: &Dataset, indices: &[usize], threshold: f64) -> Vec<f64> {
    let counts = dataset.class_counts_of(indices);
    let factor = |class: &u16| {
        let share = counts[usize::from(*class)] as f64 / indices.len() as f64;
        (threshold / share).sqrt()
    };
    let of_sample = |index: &usize| {
        dataset.targets[*index]
            .iter()
            .map(factor)
            .fold(1.0, f64::max)
    };
    indices.iter().map(of_sample).collect()
}

/// Number of samples in each balanced pass with these factors: their sum, rounded.
#[must_use]
pub fn balanced_len(factors: &[f64]) -> usize {
    let whole: f64 = factors.iter().map(|factor| factor.floor()).sum();
    let parts: f64 = factors.iter().map(|factor| factor.fract()).sum();
    whole as usize + parts.round() as usize
}

/// `indices` in the order in which balanced pass `pass` visits them, with repetitions.
///
/// A sample with the factor `r` comes `⌊r⌋` times, and once more with the probability `r − ⌊r⌋`.
/// The samples that come once more are drawn systematically (at equal steps along the sum of the
/// fractions, from a random start), so that every pass has [`balanced_len`] samples; where the sum
/// of all fractions is no whole number, that changes each probability by less than one part in
/// that sum.
///
/// It depends on the arguments alone, so a resumed run needs no saved state.
///
/// # Panics
///
/// If there is not one factor, at least 1, for each index.
#[must_use]
pub fn balanced_order(indices: &[usize], factors: &[f64], seed: u64, pass: u64) -> Vec<usize> {
    assert_eq!(indices.len(), factors.len(), "there is a factor an index");
    assert!(factors.iter().all(|r| *r >= 1.0), "factors are at least 1");
    let mut rng = generator(seed, Purpose::Balance, [pass, 0]);
    let total: f64 = factors.iter().map(|factor| factor.fract()).sum();
    let extras = total.round() as usize;
    let step = total / extras.max(1) as f64;
    let mut next = step * rng.random::<f64>();
    let mut order = Vec::with_capacity(balanced_len(factors));
    // Walked along in random order, so that it does not matter which samples are neighbours.
    let mut walk: Vec<_> = (0..indices.len()).collect();
    walk.shuffle(&mut rng);
    let (mut sum, mut drawn) = (0.0, 0);
    for at in walk {
        sum += factors[at].fract();
        let mut times = factors[at] as usize;
        while next < sum && drawn < extras {
            times += 1;
            drawn += 1;
            next += step;
        }
        order.extend(std::iter::repeat_n(indices[at], times));
    }
    // Rounding of the sums may leave the last draw just beyond the end.
    order.extend(order.last().copied().filter(|_| drawn < extras));
    order.shuffle(&mut rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::labelled;

    /// 100 samples: class 0 on all but the last, class 1 on four, class 2 on one, the last bare.
    fn data() -> Dataset {
        let classes = |i: usize| match i {
            0 => vec![0, 2],
            1..=4 => vec![0, 1],
            99 => vec![],
            _ => vec![0],
        };
        labelled((0..100).map(classes).collect(), 3)
    }

    #[test]
    fn factors_are_those_of_the_paper() {
        let all: Vec<_> = (0..100).collect();
        let factors = repeat_factors(&data(), &all, 0.16);
        assert_eq!(factors[..5], [4.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(factors[5..], [1.0; 95]);
        // Only the given samples count.
        assert_eq!(repeat_factors(&data(), &[0, 99], 0.5), [1.0, 1.0]);
        assert_eq!(repeat_factors(&data(), &all, 0.01), [1.0; 100]);
        assert!(repeat_factors(&data(), &[], 0.1).is_empty());
    }

    #[test]
    fn whole_factors_are_met_exactly() {
        let order = balanced_order(&[7, 8, 9], &[1.0, 3.0, 2.0], 5, 0);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [7, 8, 8, 8, 9, 9]);
        assert_eq!(order, balanced_order(&[7, 8, 9], &[1.0, 3.0, 2.0], 5, 0));
        let others = (1..9).map(|pass| balanced_order(&[7, 8, 9], &[1.0, 3.0, 2.0], 5, pass));
        assert!(others.into_iter().any(|other| other != order));
        assert!(balanced_order(&[], &[], 0, 0).is_empty());
    }

    const PASSES: u64 = 20_000;

    #[test]
    fn fractions_are_met_on_average_in_passes_of_one_length() {
        let factors = [1.0, 1.25, 2.5, 1.75, 1.1, 1.4, 3.0];
        let indices: Vec<_> = (0..factors.len()).collect();
        let mut counts = [0; 7];
        for pass in 0..PASSES {
            let order = balanced_order(&indices, &factors, 3, pass);
            assert_eq!(order.len(), 12);
            assert_eq!(order.len(), balanced_len(&factors));
            for index in order {
                counts[index] += 1;
            }
        }
        for (count, factor) in counts.iter().zip(factors) {
            let mean = f64::from(*count) / PASSES as f64;
            // Five standard errors of a draw with probability ½.
            assert!((mean - factor).abs() < 0.018, "{mean} for {factor}");
        }
    }

    #[test]
    fn a_total_that_is_no_whole_number_keeps_the_length() {
        for count in 1..60 {
            let factors = vec![1.3; count];
            let indices: Vec<_> = (0..count).collect();
            for pass in 0..20 {
                let order = balanced_order(&indices, &factors, 1, pass);
                assert_eq!(order.len(), balanced_len(&factors));
                for index in &indices {
                    assert!(order.contains(index));
                }
            }
        }
    }
}

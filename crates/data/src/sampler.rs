//! Sampling that repeats samples of rare classes.

use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::Dataset;
use super::random::{Purpose, generator};

/// Order of the training samples in an epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sampler {
    /// Each sample once, in a new random order each pass.
    #[default]
    Shuffle,
    /// Repeat factor sampling: samples of rare classes occur more than once, see
    /// [`repeat_factors`].
    Balanced,
}

/// Returns the average number of occurrences of each of the samples `indices` in a balanced pass,
/// in the order of `indices`.
///
/// Repeat factor sampling: Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary
/// Instance Segmentation", 2019, section 4. With the fraction `f(c)` of `indices` in class `c`, the
/// class has the factor `max(1, √(threshold / f(c)))`. A sample has the largest factor of its
/// classes. So only classes rarer than `threshold` are repeated. Samples without class have the
/// factor 1.
///
/// # Panics
///
/// If `dataset` does not have one of the samples.
#[must_use]
pub fn repeat_factors(dataset: &Dataset, indices: &[usize], threshold: f64) -> Vec<f64> {
    let counts = dataset.class_counts_of(indices);
    let factor = |class: &u16| {
        let fraction = counts[usize::from(*class)] as f64 / indices.len() as f64;
        (threshold / fraction).sqrt()
    };
    let of_sample = |index: &usize| {
        dataset.targets[*index]
            .iter()
            .map(factor)
            .fold(1.0, f64::max)
    };
    indices.iter().map(of_sample).collect()
}

/// Returns the length of a balanced pass with these factors: their rounded sum.
#[must_use]
pub fn balanced_len(factors: &[f64]) -> usize {
    let whole: f64 = factors.iter().map(|factor| factor.floor()).sum();
    let parts: f64 = factors.iter().map(|factor| factor.fract()).sum();
    whole as usize + parts.round() as usize
}

/// Returns `indices` in the order of balanced pass `pass`, with repetitions.
///
/// A sample with the factor `r` occurs `⌊r⌋` times, and once more with the probability `r − ⌊r⌋`.
/// The additional samples are drawn by systematic sampling: at equal steps along the sum of the
/// fractions, from a random start. So every pass has [`balanced_len`] samples. If the sum of the
/// fractions is not an integer, each probability changes by less than one part in that sum.
///
/// It depends only on the arguments, so a resumed run needs no saved state.
///
/// # Panics
///
/// If there is not one factor, at least 1, for each index.
#[must_use]
pub fn balanced_order(indices: &[usize], factors: &[f64], seed: u64, pass: u64) -> Vec<usize> {
    assert_eq!(indices.len(), factors.len(), "one factor per index");
    assert!(factors.iter().all(|r| *r >= 1.0), "factors are at least 1");
    let mut rng = generator(seed, Purpose::Balance, [pass, 0]);
    let total: f64 = factors.iter().map(|factor| factor.fract()).sum();
    let extras = total.round() as usize;
    let step = total / extras.max(1) as f64;
    let mut next = step * rng.random::<f64>();
    let mut order = Vec::with_capacity(balanced_len(factors));
    // The walk has a random order, so that the order of the samples has no influence.
    let mut walk: Vec<_> = (0..indices.len()).collect();
    walk.shuffle(&mut rng);
    let (mut sum, mut drawn) = (0.0, 0);
    for sample in walk {
        sum += factors[sample].fract();
        let mut times = factors[sample] as usize;
        while next < sum && drawn < extras {
            times += 1;
            drawn += 1;
            next += step;
        }
        order.extend(std::iter::repeat_n(indices[sample], times));
    }
    // Rounding may put the last draw just beyond the end.
    order.extend(order.last().copied().filter(|_| drawn < extras));
    order.shuffle(&mut rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::labelled;

    /// 100 samples: class 0 on all except the last, class 1 on four, class 2 on one, none on the
    /// last.
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
    fn factors_match_the_paper() {
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
    fn integer_factors_give_exact_repetitions() {
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
    fn fractional_factors_are_met_on_average_with_a_constant_length() {
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
    fn a_fractional_sum_keeps_the_length() {
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

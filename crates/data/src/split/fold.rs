//! Folds of a cross-validation.

use std::fmt;

use super::SplitIndices;

/// Limit of folds.
const MAX_FOLDS: usize = 100;

/// The validation fold, written as `1/5`: the first of five. The other folds are for training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidationFold {
    /// Number of the fold, from 1.
    pub number: usize,
    /// Number of folds, 2 to 100.
    pub count: usize,
}

impl ValidationFold {
    /// Parses `number/count`; `None` if a number is out of range.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, count) = text.split_once('/')?;
        let fold = Self {
            number: number.parse().ok()?,
            count: count.parse().ok()?,
        };
        let in_range =
            (2..=MAX_FOLDS).contains(&fold.count) && (1..=fold.count).contains(&fold.number);
        in_range.then_some(fold)
    }

    /// Returns training and validation samples from the fold of each sample, from 0.
    pub(super) fn of_samples(self, folds: &[usize]) -> SplitIndices {
        (0..folds.len()).partition(|&sample| folds[sample] + 1 != self.number)
    }
}

impl fmt::Display for ValidationFold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

/// Returns the fold of each sample, from 0, with folds as contiguous parts of `order`. As in
/// scikit-learn's `KFold`, the first `n % count` folds are larger by one.
pub(super) fn contiguous_folds(order: &[usize], count: usize) -> Vec<usize> {
    let (small, larger) = (order.len() / count, order.len() % count);
    let sizes = (0..count).map(|fold| small + usize::from(fold < larger));
    let numbers = sizes.enumerate().flat_map(|(fold, size)| vec![fold; size]);
    let mut folds = vec![0; order.len()];
    for (&sample, fold) in order.iter().zip(numbers) {
        folds[sample] = fold;
    }
    folds
}

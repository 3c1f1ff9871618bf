//! One of several folds.

use std::fmt;

use super::SplitIndices;

/// Most folds of a split.
const MAX_FOLDS: usize = 100;

/// The fold that validates; the others train. Written as `1/5`: the first of five.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fold {
    /// Which fold validates, from 1.
    pub number: usize,
    /// How many folds there are, 2 to 100.
    pub count: usize,
}

impl Fold {
    /// `None` unless the text is a number from 1 to a count from 2 to 100.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (number, count) = text.split_once('/')?;
        let fold = Self {
            number: number.parse().ok()?,
            count: count.parse().ok()?,
        };
        let fits = (2..=MAX_FOLDS).contains(&fold.count) && (1..=fold.count).contains(&fold.number);
        fits.then_some(fold)
    }

    /// Training and validation samples, given the fold of each sample, from 0.
    pub(super) fn of_samples(self, folds: &[usize]) -> SplitIndices {
        (0..folds.len()).partition(|&sample| folds[sample] + 1 != self.number)
    }
}

impl fmt::Display for Fold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

/// The fold of each sample, from 0, where the folds are contiguous parts of `order`. As with
/// scikit-learn's `KFold`, the first `n % count` folds are one larger than the others.
pub(super) fn deal(order: &[usize], count: usize) -> Vec<usize> {
    let (small, larger) = (order.len() / count, order.len() % count);
    let sizes = (0..count).map(|fold| small + usize::from(fold < larger));
    let numbers = sizes.enumerate().flat_map(|(fold, size)| vec![fold; size]);
    let mut folds = vec![0; order.len()];
    for (&sample, fold) in order.iter().zip(numbers) {
        folds[sample] = fold;
    }
    folds
}

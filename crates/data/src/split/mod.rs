//! Splits of a data set into training and validation samples.

mod file;
mod fold;
mod stratified;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use file::{SplitError, SplitFault, write_split};
pub use fold::ValidationFold;
pub use stratified::stratify;

use super::{Dataset, epoch_order};

/// Split into training and validation samples. Written in configs as `"none"`, `"third-fold"`,
/// `"random:0.2"`, `"kfold:1/5"`, `"stratified:1/5"` or `"file:split.csv"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Split {
    /// All samples are for training.
    None,
    /// The validation samples are the last of three contiguous folds in file order, as in
    /// scikit-learn's unshuffled `KFold(3)`: the split of the reference experiments.
    #[default]
    ThirdFold,
    /// The validation samples are drawn at random.
    Random {
        /// Fraction of validation samples, above 0 and below 1.
        fraction: f64,
    },
    /// One of several random folds of equal size.
    KFold(ValidationFold),
    /// One of several random folds with similar class frequencies.
    Stratified(ValidationFold),
    /// A CSV `Id,Fold` with `train` or `valid` for each sample.
    File(PathBuf),
}

/// An unknown split. The text is one line, as it is part of config errors.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a split; use `none`, `third-fold`, `random:FRACTION` (`random:0.2`), \
     `kfold:FOLD/COUNT` or `stratified:FOLD/COUNT` (`stratified:1/5`, 2 to 100 folds), or \
     `file:PATH` of a CSV `Id,Fold`"
)]
pub struct ParseSplitError(String);

/// Training samples and validation samples, each ascending.
pub type SplitIndices = (Vec<usize>, Vec<usize>);

// No epoch has these numbers, so the orders of splits and epochs are independent.
const RANDOM: u64 = u64::MAX;
const K_FOLD: u64 = u64::MAX - 1;

impl Split {
    /// Splits the samples of `dataset` into (training, validation), each ascending. Every sample is
    /// in one of the parts.
    ///
    /// `seed` determines the random splits. All folds of one seed and count together contain each
    /// sample once. [`Split::Random`] takes `round(n · fraction)` samples. With few samples either
    /// part may be empty.
    ///
    /// # Errors
    ///
    /// [`SplitError`]: the file of [`Split::File`] is invalid or does not match the data set. The
    /// other splits always succeed.
    pub fn split(&self, dataset: &Dataset, seed: u64) -> Result<SplitIndices, SplitError> {
        let n = dataset.len();
        Ok(match self {
            Self::None => ((0..n).collect(), Vec::new()),
            // The first `n % 3` folds are one larger, so the last one has `n / 3`.
            Self::ThirdFold => ((0..n - n / 3).collect(), (n - n / 3..n).collect()),
            Self::Random { fraction } => {
                let mut train = shuffled(n, seed, RANDOM);
                let count = ((n as f64 * fraction).round() as usize).min(n);
                let mut valid = train.split_off(n - count);
                train.sort_unstable();
                valid.sort_unstable();
                (train, valid)
            }
            Self::KFold(fold) => fold.of_samples(&fold::contiguous_folds(
                &shuffled(n, seed, K_FOLD),
                fold.count,
            )),
            Self::Stratified(fold) => {
                let classes = dataset.num_classes;
                let folds = stratified::stratify(&dataset.targets, classes, fold.count, seed);
                fold.of_samples(&folds)
            }
            Self::File(path) => file::read_split(path, dataset)?,
        })
    }
}

fn shuffled(n: usize, seed: u64, pass: u64) -> Vec<usize> {
    let all: Vec<_> = (0..n).collect();
    epoch_order(&all, seed, pass)
}

impl FromStr for Split {
    type Err = ParseSplitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, argument) = text.split_once(':').unwrap_or((text, ""));
        let split = match kind {
            "random" => argument
                .parse()
                .ok()
                .filter(|fraction| *fraction > 0.0 && *fraction < 1.0)
                .map(|fraction| Self::Random { fraction }),
            "kfold" => ValidationFold::parse(argument).map(Self::KFold),
            "stratified" => ValidationFold::parse(argument).map(Self::Stratified),
            "file" => (!argument.is_empty()).then(|| Self::File(argument.into())),
            _ if text == "none" => Some(Self::None),
            _ if text == "third-fold" => Some(Self::ThirdFold),
            _ => None,
        };
        split.ok_or_else(|| ParseSplitError(text.into()))
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::ThirdFold => f.write_str("third-fold"),
            Self::Random { fraction } => write!(f, "random:{fraction}"),
            Self::KFold(fold) => write!(f, "kfold:{fold}"),
            Self::Stratified(fold) => write!(f, "stratified:{fold}"),
            // Lossless, because the path was parsed from text.
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Split {
    type Error = ParseSplitError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Split> for String {
    fn from(split: Split) -> Self {
        split.to_string()
    }
}

//! Which samples are trained on and which judge the model.

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
pub use fold::Fold;
pub use stratified::stratify;

use super::{Dataset, epoch_order};

/// How a data set is divided into training and validation samples. Written in configs as `"none"`,
/// `"third-fold"`, `"random:0.2"`, `"kfold:1/5"`, `"stratified:1/5"` or `"file:split.csv"`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Split {
    /// All samples train; none validate.
    None,
    /// The last of three contiguous folds in the file's order validates, as scikit-learn's
    /// unshuffled `KFold(3)` makes them: the split of the reference experiments.
    #[default]
    ThirdFold,
    /// A random part validates.
    Random {
        /// Part of the samples that validates, between 0 and 1, both excluded.
        fraction: f64,
    },
    /// One of several random folds of equal size validates.
    KFold(Fold),
    /// One of several random folds validates, each of which has its share of every class.
    Stratified(Fold),
    /// A CSV `Id,Fold` says `train` or `valid` for each sample.
    File(PathBuf),
}

/// A split that is not one of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a split; use `none`, `third-fold`, `random:` and the part that validates, \
     between 0 and 1, such as `random:0.2`, `kfold:` or `stratified:` and the fold that validates, \
     such as `stratified:1/5` for the first of 2 to 100, or `file:` and a CSV `Id,Fold`"
)]
pub struct ParseSplitError(String);

/// Training samples and validation samples, each ascending.
pub type SplitIndices = (Vec<usize>, Vec<usize>);

// No epoch of training ever has these numbers, so their orders are unrelated to any epoch's.
const RANDOM: u64 = u64::MAX;
const K_FOLD: u64 = u64::MAX - 1;

impl Split {
    /// Divides the samples of `dataset` into (training, validation), each ascending, together all
    /// of them.
    ///
    /// `seed` decides the random splits; all folds of one seed and count together validate each
    /// sample once. [`Split::Random`] takes `round(n · fraction)` samples. Either part may come out
    /// empty where there are few samples: a fold of two samples has no third.
    ///
    /// # Errors
    ///
    /// [`SplitError`]: the file of [`Split::File`] does not fit the data set. The other splits
    /// always succeed.
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
            Self::KFold(fold) => {
                fold.of_samples(&fold::deal(&shuffled(n, seed, K_FOLD), fold.count))
            }
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
            "kfold" => Fold::parse(argument).map(Self::KFold),
            "stratified" => Fold::parse(argument).map(Self::Stratified),
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
            // Came from text, so nothing is lost.
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

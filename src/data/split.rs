//! Which samples are trained on and which judge the model.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::epoch_order;

/// How a data set is divided into training and validation samples. Written in configs as
/// `"none"`, `"third-fold"` or `"random:0.2"`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
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
}

/// A split that is not one of the known ones.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a split; use `none`, `third-fold`, or `random:` and the part that validates, \
     between 0 and 1, such as `random:0.2`"
)]
pub struct ParseSplitError(String);

impl Split {
    /// Divides samples `0..n` into (training, validation), each ascending, together all of them.
    ///
    /// `seed` matters for [`Split::Random`] only, which takes `round(n · fraction)` samples. Either
    /// part may come out empty where `n` is small: a fold of two samples has no third.
    #[must_use]
    pub fn split(&self, n: usize, seed: u64) -> (Vec<usize>, Vec<usize>) {
        match *self {
            Self::None => ((0..n).collect(), Vec::new()),
            // The first `n % 3` folds are one larger, so the last one has `n / 3`.
            Self::ThirdFold => ((0..n - n / 3).collect(), (n - n / 3..n).collect()),
            Self::Random { fraction } => {
                let all: Vec<_> = (0..n).collect();
                // No epoch of training ever has this number, so the two orders are unrelated.
                let mut train = epoch_order(&all, seed, u64::MAX);
                let count = ((n as f64 * fraction).round() as usize).min(n);
                let mut valid = train.split_off(n - count);
                train.sort_unstable();
                valid.sort_unstable();
                (train, valid)
            }
        }
    }
}

impl FromStr for Split {
    type Err = ParseSplitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "third-fold" => Ok(Self::ThirdFold),
            _ => text
                .strip_prefix("random:")
                .and_then(|fraction| fraction.parse().ok())
                .filter(|fraction| *fraction > 0.0 && *fraction < 1.0)
                .map(|fraction| Self::Random { fraction })
                .ok_or_else(|| ParseSplitError(text.into())),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::ThirdFold => f.write_str("third-fold"),
            Self::Random { fraction } => write!(f, "random:{fraction}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_fold_of_the_reference_has_10357_samples() {
        let (train, valid) = Split::ThirdFold.split(31_072, 0);
        assert_eq!((train.len(), valid.len()), (20_715, 10_357));
        assert_eq!(
            (train[0], train[20_714], valid[0], valid[10_356]),
            (0, 20_714, 20_715, 31_071)
        );
    }

    #[test]
    fn remainders_go_to_the_first_folds() {
        for (n, fold) in [(6, 2), (7, 2), (8, 2), (9, 3), (2, 0), (0, 0)] {
            let (train, valid) = Split::ThirdFold.split(n, 0);
            assert_eq!((train.len(), valid.len()), (n - fold, fold));
        }
    }

    #[test]
    fn none_trains_on_everything() {
        assert_eq!(Split::None.split(3, 0), (vec![0, 1, 2], vec![]));
    }

    #[test]
    fn random_is_a_partition_that_follows_the_seed() {
        let split = Split::Random { fraction: 0.2 };
        let (train, valid) = split.split(101, 7);
        assert_eq!((train.len(), valid.len()), (81, 20));
        let mut all = [train, valid.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..101).collect::<Vec<_>>());
        assert_eq!(split.split(101, 7).1, valid);
        assert_ne!(split.split(101, 8).1, valid);
    }

    #[test]
    fn text_round_trips_and_nonsense_is_refused() {
        for text in ["none", "third-fold", "random:0.2"] {
            assert_eq!(text.parse::<Split>().unwrap().to_string(), text);
            let json = format!("\"{text}\"");
            let split: Split = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&split).unwrap(), json);
        }
        for text in [
            "",
            "third",
            "random",
            "random:",
            "random:0",
            "random:1",
            "random:NaN",
        ] {
            let error = text.parse::<Split>().unwrap_err().to_string();
            assert!(error.contains("random:0.2"), "{error}");
        }
    }
}

//! `--checkpoint-every`: the interval of checkpoints within an epoch.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// An interval between two checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointInterval {
    /// Every `n` steps.
    Steps(u64),
    /// After the first step that ends at least `n` minutes after the last checkpoint.
    Minutes(u64),
}

impl CheckpointInterval {
    /// Returns whether a checkpoint is due after step number `steps`, from 1.
    #[must_use]
    pub fn is_due(self, steps: u64, last_save: Instant) -> bool {
        match self {
            Self::Steps(interval) => steps.is_multiple_of(interval),
            Self::Minutes(interval) => {
                last_save.elapsed() >= Duration::from_secs(interval.saturating_mul(60))
            }
        }
    }
}

impl FromStr for CheckpointInterval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid =
            || format!("`{text}` is not an interval; write it as \"100 steps\" or \"10 minutes\"");
        let (number, unit) = text.trim().split_once(' ').ok_or_else(invalid)?;
        let number = number.parse().ok().filter(|&number| number > 0);
        let number = number.ok_or_else(invalid)?;
        match unit.trim() {
            "step" | "steps" => Ok(Self::Steps(number)),
            "minute" | "minutes" => Ok(Self::Minutes(number)),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for CheckpointInterval {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Steps(number) => write!(f, "{number} steps"),
            Self::Minutes(number) => write!(f, "{number} minutes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_round_trip_through_text() {
        for text in ["3 steps", "10 minutes"] {
            assert_eq!(
                text.parse::<CheckpointInterval>().unwrap().to_string(),
                text
            );
        }
        assert_eq!("1 step".parse(), Ok(CheckpointInterval::Steps(1)));
        for text in [
            "", "3", "steps", "0 steps", "-1 steps", "3 hours", "x steps",
        ] {
            let error = text.parse::<CheckpointInterval>().unwrap_err();
            assert!(error.contains("10 minutes"), "{error}");
        }
    }

    #[test]
    fn checkpoint_is_due_after_the_interval() {
        let now = Instant::now();
        let due: Vec<u64> = (1..=7)
            .filter(|&n| CheckpointInterval::Steps(3).is_due(n, now))
            .collect();
        assert_eq!(due, [3, 6]);
        assert!(!CheckpointInterval::Minutes(1).is_due(1, now));
        assert!(!CheckpointInterval::Minutes(u64::MAX).is_due(1, now));
        if let Some(before) = now.checked_sub(Duration::from_secs(61)) {
            assert!(CheckpointInterval::Minutes(1).is_due(1, before));
        }
    }
}

//! `train.class_weights`: weights of each class's positive samples.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

/// Largest weight of [`ClassWeights::Balanced`], and the inverse of the smallest. Without this
/// limit the rarest class of the Human Protein Atlas, 11 of 31,072 samples, would have weight
/// 2,824.
pub const MAX_BALANCED_WEIGHT: f32 = 100.0;

/// Factors of the positive loss term of each class.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ClassWeights {
    /// All factors are 1.
    #[default]
    None,
    /// The ratio of negative to positive training samples, at most [`MAX_BALANCED_WEIGHT`] and at
    /// least its inverse. A class's positives then weigh as much as its negatives.
    Balanced,
    /// One factor for each class, in the order of the classes.
    Given(Vec<f32>),
}

impl ClassWeights {
    /// Returns the factors `[K]`, or `None` if all are 1. `counts` is the number of training
    /// samples of each class, `samples` their total number.
    #[must_use]
    pub fn resolved(&self, counts: &[usize], samples: usize) -> Option<Vec<f32>> {
        let balanced = |&positive: &usize| {
            let negative = samples.saturating_sub(positive);
            let ratio = negative as f32 / positive.max(1) as f32;
            match positive {
                0 => MAX_BALANCED_WEIGHT,
                _ => ratio.clamp(1.0 / MAX_BALANCED_WEIGHT, MAX_BALANCED_WEIGHT),
            }
        };
        match self {
            Self::None => None,
            Self::Balanced => Some(counts.iter().map(balanced).collect()),
            Self::Given(weights) => Some(weights.clone()),
        }
    }

    pub(super) fn validate(&self, classes: usize) -> Result<(), String> {
        let Self::Given(weights) = self else {
            return Ok(());
        };
        if weights.len() != classes {
            return Err(format!(
                "train.class_weights has {} numbers for {classes} classes; set one for each class",
                weights.len()
            ));
        }
        match weights.iter().find(|w| !w.is_finite() || **w < 0.0) {
            Some(bad) => Err(format!(
                "train.class_weights contains {bad}; every weight must be at least 0"
            )),
            None => Ok(()),
        }
    }
}

impl Serialize for ClassWeights {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => serializer.serialize_str("none"),
            Self::Balanced => serializer.serialize_str("balanced"),
            Self::Given(weights) => weights.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WeightsVisitor;

        impl<'de> Visitor<'de> for WeightsVisitor {
            type Value = ClassWeights;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("\"none\", \"balanced\" or a list of one number for each class")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ClassWeights, E> {
                match text {
                    "none" => Ok(ClassWeights::None),
                    "balanced" => Ok(ClassWeights::Balanced),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ClassWeights, A::Error> {
                let mut weights = Vec::new();
                while let Some(weight) = list.next_element()? {
                    weights.push(weight);
                }
                Ok(ClassWeights::Given(weights))
            }
        }

        deserializer.deserialize_any(WeightsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balanced_weights_are_clamped_ratios() {
        let weights = ClassWeights::Balanced.resolved(&[500, 250, 1, 0, 1000], 1000);
        assert_eq!(weights.unwrap(), [1.0, 3.0, 100.0, 100.0, 0.01]);
        assert_eq!(ClassWeights::None.resolved(&[1, 2], 3), None);
        let given = ClassWeights::Given(vec![2.0, 0.5]);
        assert_eq!(given.resolved(&[], 0).unwrap(), [2.0, 0.5]);
    }

    #[test]
    fn reads_and_writes_names_and_lists() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct WeightsTable {
            weights: ClassWeights,
        }
        let cases = [
            ("'none'", ClassWeights::None),
            ("'balanced'", ClassWeights::Balanced),
            ("[1, 2.5]", ClassWeights::Given(vec![1.0, 2.5])),
        ];
        for (text, expected) in cases {
            let table: WeightsTable = toml::from_str(&format!("weights = {text}")).unwrap();
            assert_eq!(table.weights, expected);
            let again: WeightsTable = toml::from_str(&toml::to_string(&table).unwrap()).unwrap();
            assert_eq!(again.weights, expected);
            let json = serde_json::to_string(&table).unwrap();
            let again: WeightsTable = serde_json::from_str(&json).unwrap();
            assert_eq!(again.weights, expected);
        }
        for (text, wanted) in [
            ("'equal'", "\"none\", \"balanced\" or a list of one number"),
            ("3", "\"none\", \"balanced\" or a list of one number"),
            ("['a']", "expected f32"),
        ] {
            let error = toml::from_str::<WeightsTable>(&format!("weights = {text}"));
            let error = error.err().unwrap().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn rejects_invalid_weights() {
        for (weights, wanted) in [
            (vec![1.0], "has 1 numbers for 2 classes"),
            (vec![1.0, -1.0], "contains -1"),
            (vec![f32::NAN, 1.0], "contains NaN"),
        ] {
            let error = ClassWeights::Given(weights).validate(2).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        assert!(ClassWeights::Balanced.validate(2).is_ok());
    }
}

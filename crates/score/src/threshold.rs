//! Decision thresholds.

use std::str::FromStr;

use crate::model_metadata::ModelSpec;

/// Where the decision thresholds come from.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Threshold {
    /// The thresholds that the model stores, one per class.
    #[default]
    Tuned,
    /// One threshold for all classes, 0–1.
    Fixed(f32),
}

impl Threshold {
    /// Returns one threshold per class of a model.
    #[must_use]
    pub fn for_model(self, spec: &ModelSpec) -> Vec<f32> {
        match self {
            Self::Tuned => spec.thresholds.clone(),
            Self::Fixed(threshold) => vec![threshold; spec.classes.len()],
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "tuned" => Ok(Self::Tuned),
            Ok(threshold) if (0.0..=1.0).contains(&threshold) => Ok(Self::Fixed(threshold)),
            _ => Err("use a number from 0 to 1, or `tuned` for the model's own".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_numbers_from_0_to_1_and_tuned() {
        assert_eq!("tuned".parse(), Ok(Threshold::Tuned));
        assert_eq!("0.05".parse(), Ok(Threshold::Fixed(0.05)));
        for text in ["", "1.1", "-0.1", "nan", "Tuned", "0,5"] {
            assert!(text.parse::<Threshold>().is_err(), "{text}");
        }
    }
}

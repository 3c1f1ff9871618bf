//! `--stem`: the pretrained filters that each input channel starts with.

use std::fmt;
use std::str::FromStr;

use crate::graph::surgery::Filter;

/// Assignment of the three pretrained stem filters to the channels of a new input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StemFilters {
    /// Channels called red, green and blue, or else the first three, keep their filters; all other
    /// channels get this one.
    Others(Filter),
    /// One filter per channel.
    Each(Vec<Filter>),
}

impl Default for StemFilters {
    /// Zero filters for new channels: the network's outputs do not depend on them at first.
    fn default() -> Self {
        Self::Others(Filter::Zero)
    }
}

/// A list of filters whose length is not the number of channels.
#[derive(Debug, thiserror::Error)]
#[error(
    "--stem {stem} names {} filters for {} channels ({})\nhint: give one letter per channel",
    stem.chars().count(), channels.len(), channels.join(", ")
)]
pub struct StemFiltersError {
    /// The filters, one letter each.
    pub stem: String,
    pub channels: Vec<String>,
}

/// The word and the letter of each filter.
const CHOICES: [(Filter, &str, char); 5] = [
    (Filter::Zero, "zero", '0'),
    (Filter::Red, "red", 'R'),
    (Filter::Green, "green", 'G'),
    (Filter::Blue, "blue", 'B'),
    (Filter::Mean, "mean", 'M'),
];

/// Returns the word and the letter of a filter.
fn names_of(filter: Filter) -> (&'static str, char) {
    let known = CHOICES.iter().find(|(known, ..)| *known == filter);
    known.map_or(("", ' '), |&(_, word, letter)| (word, letter))
}

impl FromStr for StemFilters {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "zero" => return Ok(Self::Others(Filter::Zero)),
            "red" => return Ok(Self::Others(Filter::Red)),
            "mean" => return Ok(Self::Others(Filter::Mean)),
            _ => {}
        }
        let filter = |letter: char| {
            let known = CHOICES.iter().find(|(_, _, known)| *known == letter);
            known.map(|(filter, _, _)| *filter)
        };
        let each: Option<Vec<Filter>> = text.chars().map(filter).collect();
        each.filter(|each| !each.is_empty())
            .map(Self::Each)
            .ok_or_else(|| {
                "use zero, red or mean, or one letter per channel (R, G, B, M or 0), such as RGBR"
                    .into()
            })
    }
}

impl fmt::Display for StemFilters {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Others(filter) => f.write_str(names_of(*filter).0),
            Self::Each(each) => {
                let letters = each.iter().map(|filter| names_of(*filter).1);
                f.write_str(&letters.collect::<String>())
            }
        }
    }
}

impl StemFilters {
    /// Returns one filter for each of `channels`.
    ///
    /// # Errors
    ///
    /// [`StemFiltersError`] if a list has another length than `channels`.
    pub fn filters(&self, channels: &[String]) -> Result<Vec<Filter>, StemFiltersError> {
        let others = match self {
            Self::Each(each) if each.len() == channels.len() => return Ok(each.clone()),
            Self::Each(_) => {
                return Err(StemFiltersError {
                    stem: self.to_string(),
                    channels: channels.to_vec(),
                });
            }
            Self::Others(filter) => *filter,
        };
        let rgb = [Filter::Red, Filter::Green, Filter::Blue];
        let named = |channel: &String| {
            // A sum such as `red/2+yellow/2` is treated as its first stain.
            let stain = channel.split(['/', '*', '+']).next().map(str::trim);
            let position = ["red", "green", "blue"]
                .iter()
                .position(|name| Some(*name) == stain);
            position.map(|index| rgb[index])
        };
        if channels.iter().any(|channel| named(channel).is_some()) {
            let filters = channels
                .iter()
                .map(|channel| named(channel).unwrap_or(others));
            return Ok(filters.collect());
        }
        let filters = (0..channels.len()).map(|index| rgb.get(index).copied().unwrap_or(others));
        Ok(filters.collect())
    }

    /// Returns the filter of each channel in words: `red, yellow from zero`.
    ///
    /// # Errors
    ///
    /// As [`filters`](Self::filters).
    pub fn describe(&self, channels: &[String]) -> Result<String, StemFiltersError> {
        let filters = self.filters(channels)?;
        let parts = channels.iter().zip(&filters);
        let parts: Vec<String> = parts
            .map(|(channel, filter)| match names_of(*filter).0 {
                word if word == channel => channel.clone(),
                word => format!("{channel} from {word}"),
            })
            .collect();
        Ok(parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(stem: &str, channels: &str) -> Result<Vec<Filter>, String> {
        let channels: Vec<String> = channels.split(',').map(str::to_owned).collect();
        let filters = stem.parse::<StemFilters>()?.filters(&channels);
        filters.map_err(|error| error.to_string())
    }

    #[test]
    fn assigns_filters_by_channel_name_or_else_by_position() {
        use Filter::{Blue, Green, Mean, Red, Zero};
        let hpa = "red,green,blue,yellow";
        assert_eq!(filters("zero", hpa).unwrap(), [Red, Green, Blue, Zero]);
        assert_eq!(filters("red", hpa).unwrap(), [Red, Green, Blue, Red]);
        assert_eq!(
            filters("mean", "green,blue,x").unwrap(),
            [Green, Blue, Mean]
        );
        assert_eq!(
            filters("zero", "dna,er,agp,mito").unwrap(),
            [Red, Green, Blue, Zero]
        );
        assert_eq!(
            filters("zero", "red/2+yellow/2,green/2+yellow/2,blue").unwrap(),
            [Red, Green, Blue]
        );
        assert_eq!(
            filters("mean", "yellow/2+red/2,green").unwrap(),
            [Mean, Green]
        );
        assert_eq!(
            filters("RR0GM", "a,b,c,d,e").unwrap(),
            [Red, Red, Zero, Green, Mean]
        );
    }

    #[test]
    fn rejects_a_list_of_another_length() {
        assert!(
            filters("RGB", "a,b")
                .unwrap_err()
                .contains("3 filters for 2 channels")
        );
        assert!(
            filters("RGX", "a,b,c")
                .unwrap_err()
                .contains("one letter per channel")
        );
        assert!(filters("", "a").is_err());
    }

    #[test]
    fn display_and_parse_are_inverse() {
        for text in ["zero", "red", "mean", "RGB0M"] {
            assert_eq!(text.parse::<StemFilters>().unwrap().to_string(), text);
        }
    }
}

//! `--stem`: which pretrained filters each channel starts with.

use std::fmt;
use std::str::FromStr;

use anyhow::ensure;

use crate::graph::surgery::Filter;

/// Where the filters of the channels come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StemChoice {
    /// Channels called red, green and blue have theirs, or else the first three; all others this.
    Others(Filter),
    /// One choice a channel.
    Each(Vec<Filter>),
}

impl Default for StemChoice {
    /// New channels are silent at first.
    fn default() -> Self {
        Self::Others(Filter::Zero)
    }
}

/// Words and letters of the choices.
const CHOICES: [(Filter, &str, char); 5] = [
    (Filter::Zero, "zero", '0'),
    (Filter::Red, "red", 'R'),
    (Filter::Green, "green", 'G'),
    (Filter::Blue, "blue", 'B'),
    (Filter::Mean, "mean", 'M'),
];

/// The word and the letter of a choice, which has both.
fn names_of(filter: Filter) -> (&'static str, char) {
    let known = CHOICES.iter().find(|(known, ..)| *known == filter);
    known.map_or(("", ' '), |&(_, word, letter)| (word, letter))
}

impl FromStr for StemChoice {
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
                "give zero, red or mean, or one letter a channel of R, G, B, M and 0, such as RGBR"
                    .into()
            })
    }
}

impl fmt::Display for StemChoice {
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

impl StemChoice {
    /// One choice for each of `channels`.
    ///
    /// # Errors
    ///
    /// The list is not as long as the channels are many.
    pub fn filters(&self, channels: &[String]) -> anyhow::Result<Vec<Filter>> {
        let others = match self {
            Self::Each(each) => {
                ensure!(
                    each.len() == channels.len(),
                    "--stem {self} names {} filters for {} channels ({}); give one letter a channel",
                    each.len(),
                    channels.len(),
                    channels.join(", ")
                );
                return Ok(each.clone());
            }
            Self::Others(filter) => *filter,
        };
        let rgb = [Filter::Red, Filter::Green, Filter::Blue];
        let named = |channel: &String| {
            // A mixture such as `red/2+yellow/2` counts as the stain it begins with.
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

    /// The choice for each channel, in words.
    ///
    /// # Errors
    ///
    /// As [`filters`](Self::filters).
    pub fn describe(&self, channels: &[String]) -> anyhow::Result<String> {
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
        let filters = stem.parse::<StemChoice>()?.filters(&channels);
        filters.map_err(|error| error.to_string())
    }

    #[test]
    fn channels_find_their_filters_by_name_or_else_by_place() {
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
    fn a_list_has_one_letter_a_channel() {
        assert!(
            filters("RGB", "a,b")
                .unwrap_err()
                .contains("3 filters for 2 channels")
        );
        assert!(
            filters("RGX", "a,b,c")
                .unwrap_err()
                .contains("one letter a channel")
        );
        assert!(filters("", "a").is_err());
    }

    #[test]
    fn a_choice_is_written_as_it_is_read() {
        for text in ["zero", "red", "mean", "RGB0M"] {
            assert_eq!(text.parse::<StemChoice>().unwrap().to_string(), text);
        }
    }
}

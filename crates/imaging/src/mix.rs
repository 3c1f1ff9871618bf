//! Channels that are weighted sums of stains: `red/2 + yellow/2`.

use std::str::FromStr;

use thiserror::Error;

/// Longest text of one channel, in bytes.
const MAX_LENGTH: usize = 256;
/// Most stains in one channel.
const MAX_TERMS: usize = 16;
/// Largest weight of a stain.
const MAX_WEIGHT: f32 = 1000.0;

/// One channel of a network's input: a stain, or a weighted sum of several.
///
/// Written as `green`, `red/2+yellow/2` or `0.25*red + yellow*0.75`. A stain's name is made of
/// letters, digits, `-`, `_` and `.`; numbers are decimal, without sign or exponent. A channel
/// that is nothing but a name is that stain, even if the name is a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    terms: Vec<Term>,
}

/// A stain and its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// Name of the stain, as it stands in the file names.
    pub stain: String,
    /// What its pixels are multiplied by: above 0.
    pub weight: f32,
}

/// What is wrong with the text of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MixError {
    /// More bytes than a channel may have.
    #[error("it has more than {MAX_LENGTH} bytes; write it shorter")]
    TooLong,
    /// More stains than a channel may have.
    #[error("it adds more than {MAX_TERMS} stains; add fewer")]
    TooManyTerms,
    /// Nothing where a stain should be.
    #[error("a stain is missing; write `red`, or a sum such as `red/2+yellow/2`")]
    MissingStain,
    /// Only a number where a stain should be.
    #[error("`{0}` names no stain; write a stain with its weight, such as `0.5*red`")]
    NoStain(String),
    /// A product of stains, or a number divided by one.
    #[error("`{0}` is not a stain with a weight; write `0.5*red`, `red*0.5` or `red/2`")]
    NotAWeight(String),
    /// A name with other characters.
    #[error("`{0}` is no name of a stain; use letters, digits, `-`, `_` and `.`")]
    BadName(String),
    /// A weight of zero, or far too large a one.
    #[error("the weight in `{0}` must be above 0 and at most {MAX_WEIGHT}")]
    BadWeight(String),
    /// One stain in two terms.
    #[error("it adds `{0}` twice; name it once, with the sum of both weights")]
    Twice(String),
}

impl Mix {
    /// The stains and their weights, in the order of the text; at least one.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// Writes the weighted sum to `out`. `plane` gives the pixels of a stain, as many as `out`
    /// has.
    pub(super) fn apply<'a, T>(&self, plane: impl Fn(&str) -> &'a [T], out: &mut [f32])
    where
        T: Copy + Into<f32> + 'a,
    {
        // From nothing rather than from zero: a plain stain stays as it is, bit for bit.
        for (number, term) in self.terms.iter().enumerate() {
            for (sum, &pixel) in out.iter_mut().zip(plane(&term.stain)) {
                let part = term.weight * pixel.into();
                *sum = if number == 0 { part } else { *sum + part };
            }
        }
    }
}

impl FromStr for Mix {
    type Err = MixError;

    fn from_str(text: &str) -> Result<Self, MixError> {
        if text.len() > MAX_LENGTH {
            return Err(MixError::TooLong);
        }
        let parts: Vec<&str> = text.split('+').map(str::trim).collect();
        if parts.len() > MAX_TERMS {
            return Err(MixError::TooManyTerms);
        }
        let mut terms: Vec<Term> = Vec::with_capacity(parts.len());
        for part in &parts {
            let term = parse_term(part)?;
            if parts.len() > 1 && number(part).is_some() {
                return Err(MixError::NoStain((*part).to_owned()));
            }
            if terms.iter().any(|earlier| earlier.stain == term.stain) {
                return Err(MixError::Twice(term.stain));
            }
            terms.push(term);
        }
        Ok(Self { terms })
    }
}

/// `stain`, `number*stain`, `stain*number` or `stain/number`.
fn parse_term(text: &str) -> Result<Term, MixError> {
    let term = |stain: &str, weight: f32| {
        let fits = weight > 0.0 && weight <= MAX_WEIGHT;
        let stain = check_name(stain)?;
        fits.then_some(Term { stain, weight })
            .ok_or_else(|| MixError::BadWeight(text.to_owned()))
    };
    let Some(at) = text.find(['*', '/']) else {
        return term(text, 1.0);
    };
    let (left, right) = (text[..at].trim(), text[at + 1..].trim());
    let times = text[at..].starts_with('*');
    match (number(left), number(right)) {
        (None, Some(factor)) if times => term(left, factor),
        (None, Some(divisor)) => term(left, 1.0 / divisor),
        (Some(factor), None) if times => term(right, factor),
        (Some(_), Some(_)) => Err(MixError::NoStain(text.to_owned())),
        _ if left.is_empty() || right.is_empty() => Err(MixError::MissingStain),
        _ => Err(MixError::NotAWeight(text.to_owned())),
    }
}

/// Digits with at most one point; neither sign nor exponent, which names could be mistaken for.
fn number(text: &str) -> Option<f32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

fn check_name(name: &str) -> Result<String, MixError> {
    if name.is_empty() {
        return Err(MixError::MissingStain);
    }
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.chars().all(fits) {
        Ok(name.to_owned())
    } else {
        Err(MixError::BadName(name.to_owned()))
    }
}

/// The stains that `channels` are made of, each once, in the order in which they first appear.
/// A channel that is no expression counts as one stain of that name.
pub(super) fn stains(channels: &[String]) -> Vec<String> {
    let mut stains: Vec<String> = Vec::new();
    for channel in channels {
        let names = match channel.parse::<Mix>() {
            Ok(mix) => mix.terms.into_iter().map(|term| term.stain).collect(),
            Err(_) => vec![channel.clone()],
        };
        for name in names {
            if !stains.contains(&name) {
                stains.push(name);
            }
        }
    }
    stains
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(text: &str) -> Vec<(String, f32)> {
        let mix: Mix = text.parse().unwrap();
        let terms = mix.terms.into_iter();
        terms.map(|term| (term.stain, term.weight)).collect()
    }

    #[test]
    fn stains_and_weights_are_read() {
        let red = |weight| vec![("red".to_owned(), weight)];
        for (text, weight) in [
            ("red", 1.0),
            (" red ", 1.0),
            ("red/2", 0.5),
            ("red * .25", 0.25),
            ("0.75*red", 0.75),
            ("2.*red", 2.0),
        ] {
            assert_eq!(terms(text), red(weight), "{text}");
        }
        let both = [("red".to_owned(), 0.25), ("yellow".to_owned(), 0.75)];
        assert_eq!(terms("0.25*red + yellow*0.75"), both);
        for name in [
            "dna",
            "Alexa-488",
            "ch_1",
            "2",
            "0.5",
            "1e5",
            "inf",
            "Zellkern_ä",
        ] {
            assert_eq!(terms(name), [(name.to_owned(), 1.0)]);
        }
        assert_eq!(terms("1e5*2"), [("1e5".to_owned(), 2.0)]);
    }

    #[test]
    fn each_way_to_be_wrong_has_its_error() {
        let many = ["red"; 17].join("+");
        let long = "r".repeat(257);
        let huge = format!("{}*red", "9".repeat(99));
        for (text, wanted) in [
            ("", MixError::MissingStain),
            ("red+", MixError::MissingStain),
            ("+red", MixError::MissingStain),
            ("2*", MixError::MissingStain),
            ("/2", MixError::MissingStain),
            ("red*", MixError::MissingStain),
            ("2*3", MixError::NoStain("2*3".into())),
            ("0.5+red", MixError::NoStain("0.5".into())),
            ("red*green", MixError::NotAWeight("red*green".into())),
            ("2/red", MixError::NotAWeight("2/red".into())),
            ("red/2/2", MixError::NotAWeight("red/2/2".into())),
            ("red*-1", MixError::NotAWeight("red*-1".into())),
            ("re d", MixError::BadName("re d".into())),
            ("a\0b", MixError::BadName("a\0b".into())),
            ("(red)*2", MixError::BadName("(red)".into())),
            ("../red*2", MixError::NotAWeight("../red*2".into())),
            ("red/0", MixError::BadWeight("red/0".into())),
            ("0*red", MixError::BadWeight("0*red".into())),
            (&huge, MixError::BadWeight(huge.clone())),
            ("red+red/2", MixError::Twice("red".into())),
            (&many, MixError::TooManyTerms),
            (&long, MixError::TooLong),
        ] {
            assert_eq!(text.parse::<Mix>(), Err(wanted), "{text}");
        }
    }

    #[test]
    fn the_sum_is_weighted_and_a_plain_stain_is_itself() {
        let plane = |name: &str| match name {
            "a" => &[4.0, -0.0][..],
            _ => &[8.0, 1.0][..],
        };
        let mut out = [9.0; 2];
        let mix = |text: &str| text.parse::<Mix>().unwrap();
        mix("a/2+b*0.25").apply(plane, &mut out);
        assert_eq!(out.to_vec(), [4.0, 0.25]);
        mix("a").apply(plane, &mut out);
        assert_eq!(out.map(f32::to_bits), [4.0, -0.0].map(f32::to_bits));
    }

    #[test]
    fn stains_come_once_in_order_of_appearance() {
        let channels = ["red/2+yellow/2", "green/2+yellow/2", "blue", "a b"].map(String::from);
        assert_eq!(stains(&channels), ["red", "yellow", "green", "blue", "a b"]);
    }
}

//! Channels as weighted sums of stains: `red/2 + yellow/2`.

use std::str::FromStr;

use thiserror::Error;

/// Longest channel expression in bytes.
const MAX_LENGTH: usize = 256;
/// Limit of stains in one channel.
const MAX_TERMS: usize = 16;
const MAX_WEIGHT: f32 = 1000.0;

/// One channel of a network's input: a stain, or a weighted sum of several.
///
/// Syntax: `green`, `red/2+yellow/2` or `0.25*red + yellow*0.75`. Stain names consist of letters,
/// digits, `-`, `_` and `.`; numbers are decimal, without sign or exponent. A single name is always
/// a stain, even if it looks like a number.
#[derive(Debug, Clone, PartialEq)]
pub struct StainMix {
    terms: Vec<WeightedStain>,
}

/// A stain with its factor in the sum.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedStain {
    /// Name of the stain as in file names.
    pub stain: String,
    /// Factor above 0.
    pub weight: f32,
}

/// Why a channel expression is invalid. Each text is one line, as it is part of longer messages.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StainMixError {
    #[error("it has more than {MAX_LENGTH} bytes; shorten it")]
    TooLong,
    #[error("it adds more than {MAX_TERMS} stains; add fewer")]
    TooManyTerms,
    /// An empty term.
    #[error("a stain is missing; write `red`, or a sum such as `red/2+yellow/2`")]
    MissingStain,
    /// A term that is only a number.
    #[error("`{0}` has no stain; write a stain with its weight, such as `0.5*red`")]
    NoStain(String),
    #[error("`{0}` is not a stain with a weight; write `0.5*red`, `red*0.5` or `red/2`")]
    NotAWeight(String),
    #[error("`{0}` is not a valid stain name; use letters, digits, `-`, `_` and `.`")]
    BadName(String),
    /// A weight of 0 or above `MAX_WEIGHT`.
    #[error("the weight in `{0}` must be above 0 and at most {MAX_WEIGHT}")]
    BadWeight(String),
    #[error("it adds `{0}` twice; add it once, with the sum of both weights")]
    Twice(String),
}

impl StainMix {
    /// Returns the stains and weights in the order of the text; at least one.
    #[must_use]
    pub fn terms(&self) -> &[WeightedStain] {
        &self.terms
    }

    /// Writes the weighted sum to `out`. `plane` returns the pixels of a stain, as many as `out`
    /// holds.
    pub(super) fn apply<'a, T>(&self, plane: impl Fn(&str) -> &'a [T], out: &mut [f32])
    where
        T: Copy + Into<f32> + 'a,
    {
        // The first term is assigned, not added to 0, so that a plain stain is bit-identical.
        for (number, term) in self.terms.iter().enumerate() {
            for (sum, &pixel) in out.iter_mut().zip(plane(&term.stain)) {
                let part = term.weight * pixel.into();
                *sum = if number == 0 { part } else { *sum + part };
            }
        }
    }
}

impl FromStr for StainMix {
    type Err = StainMixError;

    fn from_str(text: &str) -> Result<Self, StainMixError> {
        if text.len() > MAX_LENGTH {
            return Err(StainMixError::TooLong);
        }
        let parts: Vec<&str> = text.split('+').map(str::trim).collect();
        if parts.len() > MAX_TERMS {
            return Err(StainMixError::TooManyTerms);
        }
        let mut terms: Vec<WeightedStain> = Vec::with_capacity(parts.len());
        for part in &parts {
            let term = parse_term(part)?;
            if parts.len() > 1 && number(part).is_some() {
                return Err(StainMixError::NoStain((*part).to_owned()));
            }
            if terms.iter().any(|earlier| earlier.stain == term.stain) {
                return Err(StainMixError::Twice(term.stain));
            }
            terms.push(term);
        }
        Ok(Self { terms })
    }
}

/// `stain`, `number*stain`, `stain*number` or `stain/number`.
fn parse_term(text: &str) -> Result<WeightedStain, StainMixError> {
    let term = |stain: &str, weight: f32| {
        let fits = weight > 0.0 && weight <= MAX_WEIGHT;
        let stain = parse_name(stain)?;
        fits.then_some(WeightedStain { stain, weight })
            .ok_or_else(|| StainMixError::BadWeight(text.to_owned()))
    };
    let Some(operator) = text.find(['*', '/']) else {
        return term(text, 1.0);
    };
    let (left, right) = (text[..operator].trim(), text[operator + 1..].trim());
    let times = text[operator..].starts_with('*');
    match (number(left), number(right)) {
        (None, Some(factor)) if times => term(left, factor),
        (None, Some(divisor)) => term(left, 1.0 / divisor),
        (Some(factor), None) if times => term(right, factor),
        (Some(_), Some(_)) => Err(StainMixError::NoStain(text.to_owned())),
        _ if left.is_empty() || right.is_empty() => Err(StainMixError::MissingStain),
        _ => Err(StainMixError::NotAWeight(text.to_owned())),
    }
}

/// Parses digits with at most one decimal point. Signs and exponents are not accepted, because
/// names such as `1e5` or `inf` would be read as numbers.
fn number(text: &str) -> Option<f32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    plain.then(|| text.parse().ok()).flatten()
}

fn parse_name(name: &str) -> Result<String, StainMixError> {
    if name.is_empty() {
        return Err(StainMixError::MissingStain);
    }
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.chars().all(fits) {
        Ok(name.to_owned())
    } else {
        Err(StainMixError::BadName(name.to_owned()))
    }
}

/// Returns the stains of `channels` in order of first appearance, each once. A channel that cannot
/// be parsed counts as one stain of that name.
pub(super) fn stains(channels: &[String]) -> Vec<String> {
    let mut stains: Vec<String> = Vec::new();
    for channel in channels {
        let names = match channel.parse::<StainMix>() {
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
        let mix: StainMix = text.parse().unwrap();
        let terms = mix.terms.into_iter();
        terms.map(|term| (term.stain, term.weight)).collect()
    }

    #[test]
    fn parses_stains_and_weights() {
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
    fn every_invalid_expression_has_its_error() {
        let many = ["red"; 17].join("+");
        let long = "r".repeat(257);
        let huge = format!("{}*red", "9".repeat(99));
        for (text, wanted) in [
            ("", StainMixError::MissingStain),
            ("red+", StainMixError::MissingStain),
            ("+red", StainMixError::MissingStain),
            ("2*", StainMixError::MissingStain),
            ("/2", StainMixError::MissingStain),
            ("red*", StainMixError::MissingStain),
            ("2*3", StainMixError::NoStain("2*3".into())),
            ("0.5+red", StainMixError::NoStain("0.5".into())),
            ("red*green", StainMixError::NotAWeight("red*green".into())),
            ("2/red", StainMixError::NotAWeight("2/red".into())),
            ("red/2/2", StainMixError::NotAWeight("red/2/2".into())),
            ("red*-1", StainMixError::NotAWeight("red*-1".into())),
            ("re d", StainMixError::BadName("re d".into())),
            ("a\0b", StainMixError::BadName("a\0b".into())),
            ("(red)*2", StainMixError::BadName("(red)".into())),
            ("../red*2", StainMixError::NotAWeight("../red*2".into())),
            ("red/0", StainMixError::BadWeight("red/0".into())),
            ("0*red", StainMixError::BadWeight("0*red".into())),
            (&huge, StainMixError::BadWeight(huge.clone())),
            ("red+red/2", StainMixError::Twice("red".into())),
            (&many, StainMixError::TooManyTerms),
            (&long, StainMixError::TooLong),
        ] {
            assert_eq!(text.parse::<StainMix>(), Err(wanted), "{text}");
        }
    }

    #[test]
    fn applies_weights_and_keeps_a_plain_stain_bit_identical() {
        let plane = |name: &str| match name {
            "a" => &[4.0, -0.0][..],
            _ => &[8.0, 1.0][..],
        };
        let mut out = [9.0; 2];
        let mix = |text: &str| text.parse::<StainMix>().unwrap();
        mix("a/2+b*0.25").apply(plane, &mut out);
        assert_eq!(out.to_vec(), [4.0, 0.25]);
        mix("a").apply(plane, &mut out);
        assert_eq!(out.map(f32::to_bits), [4.0, -0.0].map(f32::to_bits));
    }

    #[test]
    fn returns_each_stain_once_in_order_of_appearance() {
        let channels = ["red/2+yellow/2", "green/2+yellow/2", "blue", "a b"].map(String::from);
        assert_eq!(stains(&channels), ["red", "yellow", "green", "blue", "a b"]);
    }
}

//! Shards: the id of a sample alone determines which process scores it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// One of `n` shards of a set of samples.
///
/// A sample belongs to shard `h mod n`, where `h` is the big-endian number in the first eight bytes
/// of the SHA-256 of the UTF-8 bytes of its id. So it is in exactly one shard for any `n`,
/// independent of other samples and their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    index: u32,
    count: u32,
}

impl Shard {
    /// Creates shard `index mod count`: numbering from 0 to `count − 1` and from 1 to `count` give
    /// the same shards.
    ///
    /// # Errors
    ///
    /// `count` is 0, or `index` is more than `count`.
    pub fn new(index: u32, count: u32) -> Result<Self, String> {
        if count == 0 {
            return Err("the number of shards must be 1 or more, not 0".into());
        }
        if index > count {
            return Err(format!(
                "there is no shard {index} of {count}: number them from 0 to {} or from 1 to {count}",
                count - 1
            ));
        }
        Ok(Self {
            index: index % count,
            count,
        })
    }

    /// Returns the index, counted from 0.
    #[must_use]
    pub fn index(self) -> u32 {
        self.index
    }

    /// Returns the number of shards.
    #[must_use]
    pub fn count(self) -> u32 {
        self.count
    }

    /// Whether the sample of this id belongs to it.
    #[must_use]
    pub fn holds(self, id: &str) -> bool {
        let hash = Sha256::digest(id);
        let first = hash.iter().take(8);
        let number = first.fold(0, |number: u64, byte| number << 8 | u64::from(*byte));
        number % u64::from(self.count) == u64::from(self.index)
    }
}

impl fmt::Display for Shard {
    /// Writes the form that [`FromStr`] parses: `3/8`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = |text: &str| {
            // `u32::from_str` accepts a plus sign, too.
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten()
        };
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(i, n)| Some((parse(i)?, parse(n)?)));
        let (index, count) =
            numbers.ok_or_else(|| format!("`{text}` is not a shard; use i/n, such as 3/8"))?;
        Self::new(index, count)
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formula_matches_its_documentation() {
        // In Python: int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big") % count
        for (id, count, index) in [
            ("a", 7, 4),
            ("A", 7, 3),
            ("ü", 1000, 28),
            ("0020af02-bbba-11e8-b2ba-ac1f6b6435d0", 8, 4),
        ] {
            for other in 0..count {
                let shard = Shard::new(other, count).unwrap();
                assert_eq!(shard.holds(id), other == index, "{id} {count}");
            }
        }
    }

    #[test]
    fn each_id_is_in_exactly_one_shard() {
        for count in [1, 2, 3, 8, 97] {
            let mut sizes = vec![0; count as usize];
            for id in 0..2000 {
                let id = format!("{id:x}");
                let holding = (0..count).filter(|i| Shard::new(*i, count).unwrap().holds(&id));
                let holding: Vec<_> = holding.collect();
                assert_eq!(holding.len(), 1);
                sizes[holding[0] as usize] += 1;
            }
            // Of 2000 at 97 shards, 21 are expected, and 4 are 4 standard deviations away.
            assert!(sizes.iter().all(|size| *size >= 4), "{sizes:?}");
        }
    }

    #[test]
    fn shards_parse_and_print() {
        for (text, shown) in [
            ("0/1", "0/1"),
            ("1/1", "0/1"),
            ("3/8", "3/8"),
            ("8/8", "0/8"),
        ] {
            let shard: Shard = text.parse().unwrap();
            assert_eq!(shard.to_string(), shown);
        }
        for (text, wanted) in [
            (
                "9/8",
                "no shard 9 of 8: number them from 0 to 7 or from 1 to 8",
            ),
            ("0/0", "must be 1 or more"),
            ("", "`` is not a shard"),
            ("3", "use i/n"),
            ("-1/8", "`-1/8` is not a shard"),
            ("+1/8", "`+1/8` is not a shard"),
            ("1/8/2", "is not a shard"),
            ("1.5/8", "is not a shard"),
            ("a/b", "is not a shard"),
            ("1/99999999999", "is not a shard"),
        ] {
            let error = text.parse::<Shard>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}

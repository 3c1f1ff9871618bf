//! Deserializes a tensor's values from JSON: numbers, flat or nested.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// Maximum nesting depth.
const MAX_DEPTH: usize = 8;

/// The values of a tensor in row-major order, flattened.
#[derive(Debug, Default)]
pub struct JsonNumbers(pub(super) Vec<f64>);

impl<'de> Deserialize<'de> for JsonNumbers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut numbers = Vec::new();
        deserializer.deserialize_seq(NestedNumbers(&mut numbers, MAX_DEPTH))?;
        Ok(Self(numbers))
    }
}

/// Appends numbers, or lists of numbers up to a remaining depth, to a vector.
struct NestedNumbers<'a>(&'a mut Vec<f64>, usize);

impl<'de> Visitor<'de> for NestedNumbers<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers, flat or nested according to the shape")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<(), E> {
        self.0.push(number);
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some(depth) = self.1.checked_sub(1) else {
            return Err(de::Error::custom("the numbers are nested too deeply"));
        };
        while list
            .next_element_seed(NestedNumbers(&mut *self.0, depth))?
            .is_some()
        {}
        Ok(())
    }
}

impl<'de> de::DeserializeSeed<'de> for NestedNumbers<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_be_nested_up_to_a_limit() {
        let parse = |text: &str| serde_json::from_str::<JsonNumbers>(text).map(|numbers| numbers.0);
        assert_eq!(
            parse("[1, [2.5], [[-3], []], 4]").unwrap(),
            [1.0, 2.5, -3.0, 4.0]
        );
        assert_eq!(
            parse(&format!("{}1{}", "[".repeat(8), "]".repeat(8))).unwrap(),
            [1.0]
        );
        for bad in ["1", "{}", "[null]", "[true]", "[\"1\"]", "[{}]"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let deep = format!("{}1{}", "[".repeat(9), "]".repeat(9));
        assert!(parse(&deep).unwrap_err().to_string().contains("too deeply"));
    }
}

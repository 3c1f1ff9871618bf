//! Parses JSON requests.

use serde::de::DeserializeOwned;

/// Maximum length of a parser's message in characters. It may quote the request.
const MAX_CHARS: usize = 200;

/// Parses JSON. `what` names the expected request in the error.
///
/// # Errors
///
/// A message of bounded length.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, String> {
    let invalid = |why: &str| format!("the body is not a valid {what}: {why}");
    // serde would accept a list as the fields of an object in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(invalid("it is a list; send an object"));
    }
    serde_json::from_slice(bytes).map_err(|error| invalid(&shorten(&error.to_string())))
}

/// Removes the middle of a long message. Its end contains the line and column.
fn shorten(message: &str) -> String {
    let count = message.chars().count();
    if count <= MAX_CHARS {
        return message.to_owned();
    }
    let start: String = message.chars().take(MAX_CHARS / 2).collect();
    let end: String = message.chars().skip(count - MAX_CHARS / 2).collect();
    format!("{start} … {end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::types::IndexRequest;

    #[test]
    fn errors_are_short_for_long_requests() {
        let body = format!(r#"{{"ready": "{}"}}"#, "ä".repeat(100_000));
        let error = read::<IndexRequest>(body.as_bytes(), "index request").unwrap_err();
        assert!(
            error.contains("not a valid index request: invalid type: string \"ä"),
            "{error}"
        );
        assert!(
            error.ends_with("expected a boolean at line 1 column 200012"),
            "{error}"
        );
        assert!(error.chars().count() < 300, "{error}");
    }

    #[test]
    fn a_list_is_refused() {
        let error = read::<IndexRequest>(b" [true]", "request").unwrap_err();
        assert!(error.contains("a list; send an object"), "{error}");
    }
}

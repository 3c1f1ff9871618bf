//! Requests in JSON.

use serde::de::DeserializeOwned;

/// Most characters of a parser's message that are repeated: it holds what the client sent.
const SHOWN: usize = 200;

/// Reads JSON; `what` it is to be stands in the error.
///
/// # Errors
///
/// A sentence of a bounded length, whatever was sent.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, String> {
    let refused = |why: &str| format!("the body is no {what}: {why}");
    // The parser would take it for an object's fields in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(refused("it is a list; send an object"));
    }
    serde_json::from_slice(bytes).map_err(|error| refused(&shortened(&error.to_string())))
}

/// Begin and end of a long message; it ends with the place that it is about.
fn shortened(message: &str) -> String {
    let count = message.chars().count();
    if count <= SHOWN {
        return message.to_owned();
    }
    let begin: String = message.chars().take(SHOWN / 2).collect();
    let end: String = message.chars().skip(count - SHOWN / 2).collect();
    format!("{begin} … {end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::types::IndexRequest;

    #[test]
    fn an_answer_is_short_however_long_the_request() {
        let body = format!(r#"{{"ready": "{}"}}"#, "ä".repeat(100_000));
        let error = read::<IndexRequest>(body.as_bytes(), "request for the index").unwrap_err();
        assert!(
            error.contains("request for the index: invalid type: string \"ä"),
            "{error}"
        );
        assert!(
            error.ends_with("expected a boolean at line 1 column 200012"),
            "{error}"
        );
        assert!(error.chars().count() < 300, "{error}");
    }

    #[test]
    fn a_list_is_no_object() {
        let error = read::<IndexRequest>(b" [true]", "request").unwrap_err();
        assert!(error.contains("a list; send an object"), "{error}");
    }
}

//! Suggestions for misspelled keys and values of a config.

/// Returns a suggestion for the parser's message about an unknown key or value, if a similar one
/// exists.
///
/// `place` is the path of tables that contains an unknown key (empty at the top level), or the path
/// of the key that has an unknown value.
pub(super) fn suggestion(message: &str, place: &str) -> Option<String> {
    let (kind, rest) = ["unknown field ", "unknown variant "]
        .iter()
        .find_map(|kind| Some((*kind, message.split_once(kind)?.1)))?;
    // The parser quotes the unknown word, then all expected words.
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let word = quoted.next()?;
    let nearest = nearest(word, quoted)?;
    let suggested = match (kind, place) {
        ("unknown variant ", _) => format!("{place} = \"{nearest}\""),
        (_, "") => nearest.to_owned(),
        _ => format!("{place}.{nearest}"),
    };
    Some(format!("did you mean {suggested}?"))
}

/// Returns the known word with the smallest edit distance to `word`, at most one edit for each
/// three letters, rounded up. Otherwise a known word that starts or ends with `word` as a part.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let known: Vec<_> = known.collect();
    let allowed = word.chars().count().div_ceil(3);
    let near = known
        .iter()
        .map(|known| (strsim::osa_distance(word, known), known))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known);
    let is_part = |known: &&&str| {
        let mut parts = known.split('_');
        parts.next() == Some(word) || parts.next_back() == Some(word)
    };
    near.or_else(|| known.iter().find(is_part)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_similar_words_only() {
        let message = |word: &str| {
            format!("unknown field `{word}`, expected one of `epochs`, `batch_size`, `seed`")
        };
        for (word, nearest) in [
            ("epoch", Some("epochs")),
            ("Epochs", Some("epochs")),
            ("batchsize", Some("batch_size")),
            ("batch-size", Some("batch_size")),
            ("sede", Some("seed")),
            ("batch", Some("batch_size")),
            ("size", Some("batch_size")),
            ("learning_rate", None),
            ("", None),
        ] {
            let expected = nearest.map(|nearest| format!("did you mean train.{nearest}?"));
            assert_eq!(suggestion(&message(word), "train"), expected, "{word}");
        }
    }

    #[test]
    fn suggests_tables_and_values() {
        let top = "unknown field `trains`, expected one of `model`, `train`";
        assert_eq!(suggestion(top, "").unwrap(), "did you mean train?");
        let value = "unknown variant `adma`, expected `adam` or `sgd`";
        assert_eq!(
            suggestion(value, "optimizer.name").unwrap(),
            "did you mean optimizer.name = \"adam\"?"
        );
        assert_eq!(suggestion("missing field `epochs`", "train"), None);
    }
}

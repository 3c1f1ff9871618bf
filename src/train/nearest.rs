//! What a config's author may have meant by a word that is not known.

/// Completes the parser's sentence about an unknown key or value, if a known one is near.
///
/// `place` is the path of tables to the key, empty at the top, or the path of the key whose value
/// it is.
pub(super) fn suggestion(message: &str, place: &str) -> Option<String> {
    let (kind, rest) = ["unknown field ", "unknown variant "]
        .iter()
        .find_map(|kind| Some((*kind, message.split_once(kind)?.1)))?;
    // The parser quotes the word that it met, then all that it knows.
    let mut quoted = rest.split('`').skip(1).step_by(2);
    let word = quoted.next()?;
    let nearest = nearest(word, quoted)?;
    let meant = match (kind, place) {
        ("unknown variant ", _) => format!("{place} = \"{nearest}\""),
        (_, "") => nearest.to_owned(),
        _ => format!("{place}.{nearest}"),
    };
    Some(format!("did you mean {meant}?"))
}

/// The known word that the fewest edits make of `word`, one for each three letters, rounded up; else
/// one that it begins or ends.
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
    fn near_words_are_suggested_and_far_ones_are_not() {
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
    fn tables_and_values_are_suggested_too() {
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

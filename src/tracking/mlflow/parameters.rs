//! Conversion of a run's config to MLflow parameters.

/// Returns the values of a config by their full names, such as `train.epochs`; lists in TOML
/// syntax.
///
/// # Errors
///
/// The parser's message if `text` is not TOML.
pub(super) fn parameters(text: &str) -> Result<Vec<(String, String)>, String> {
    let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    let mut found = Vec::new();
    flatten("", &table, &mut found);
    Ok(found)
}

fn flatten(prefix: &str, table: &toml::Table, found: &mut Vec<(String, String)>) {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        match value {
            toml::Value::Table(table) => flatten(&format!("{name}."), table, found),
            toml::Value::String(text) => found.push((name, text.clone())),
            other => found.push((name, other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flattens_a_config() {
        let text = "[model]\narch = \"plain\"\nchannels = [\"red\", \"dna\"]\n[train]\n\
                    epochs = 3\nstages = [{ epochs = 1, freeze = [\"a\"] }]\n[data.augment]\n\
                    crop = 0.8\n";
        let found = parameters(text).unwrap();
        let of = |name: &str| {
            let pair = found.iter().find(|(key, _)| key == name);
            pair.map(|(_, value)| value.as_str())
        };
        assert_eq!(found.len(), 5);
        assert_eq!(of("model.arch"), Some("plain"));
        assert_eq!(of("model.channels"), Some("[\"red\", \"dna\"]"));
        assert_eq!(of("train.epochs"), Some("3"));
        assert_eq!(of("data.augment.crop"), Some("0.8"));
        assert!(of("train.stages").unwrap().contains("freeze"));
        assert!(parameters("a = ").is_err());
    }
}

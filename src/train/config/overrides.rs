//! Values that replace those of a config's file.

/// Sets `table.key=value`; a value that is not TOML is taken as a string.
pub(super) fn set(table: &mut toml::Table, item: &str) -> Option<()> {
    let (key, text) = item.split_once('=')?;
    let mut parts: Vec<&str> = key.trim().split('.').collect();
    let last = parts
        .pop()
        .filter(|last| !last.is_empty() && !parts.is_empty())?;
    let mut target = table;
    for part in parts {
        target = target
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()?;
    }
    let value = format!("value = {}", text.trim())
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.trim().to_owned()));
    target.insert(last.to_owned(), value);
    Some(())
}

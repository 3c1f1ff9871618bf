//! `--set TABLE.KEY=VALUE`: values that override those of the config file.

use toml::{Table, Value};

/// The overrides that were applied to a config, in order, with the keys that each of them set.
pub(super) struct Overrides<'a>(Vec<Override<'a>>);

struct Override<'a> {
    /// As on the command line, without `--set`.
    text: &'a str,
    /// The key, for example `train.epochs`.
    key: String,
    /// The outermost table around the key that did not exist before, if any.
    created: Option<String>,
}

impl<'a> Overrides<'a> {
    /// Applies overrides to a table and records their keys. A value that is not TOML is a string.
    ///
    /// # Errors
    ///
    /// The first override that is not `table.key=value`.
    pub fn apply(table: &mut Table, items: &'a [String]) -> Result<Self, &'a str> {
        let apply = |item: &'a String| apply(table, item).ok_or(item.as_str());
        Ok(Self(items.iter().map(apply).collect::<Result<_, _>>()?))
    }

    /// Returns the last override that set the value at `key`, a value inside it or a table around it.
    pub fn at(&self, key: &str) -> Option<&'a str> {
        let inside = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        self.last(|item| {
            inside(key, &item.key)
                || item
                    .created
                    .as_ref()
                    .is_some_and(|created| inside(&item.key, key) && inside(key, created))
        })
    }

    /// Returns the last override whose key occurs in a message about the config's values.
    pub fn named_in(&self, message: &str) -> Option<&'a str> {
        let is_key = |c: char| c.is_alphanumeric() || c == '_';
        self.last(|item| {
            message.match_indices(&item.key).any(|(at, key)| {
                let next = message[at + key.len()..].chars().next();
                !next.is_some_and(is_key)
            })
        })
    }

    /// Returns all overrides as command-line options.
    pub fn to_options(&self) -> String {
        let options: Vec<String> = self.0.iter().map(|item| option(item.text)).collect();
        options.join(" ")
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn last(&self, matches: impl Fn(&Override) -> bool) -> Option<&'a str> {
        let item = self.0.iter().rev().find(|item| matches(item));
        item.map(|item| item.text)
    }
}

/// Returns an override as a command-line option.
pub(super) fn option(text: &str) -> String {
    format!("--set {text}")
}

fn apply<'a>(table: &mut Table, text: &'a str) -> Option<Override<'a>> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim();
    let (tables, last) = key.rsplit_once('.').filter(|(_, last)| !last.is_empty())?;
    let (mut target, mut created, mut path) = (table, None, String::new());
    for name in tables.split('.') {
        path += name;
        if created.is_none() && !target.contains_key(name) {
            created = Some(path.clone());
        }
        path.push('.');
        target = target
            .entry(name)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()?;
    }
    let value = format!("value = {}", value.trim())
        .parse::<Table>()
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| Value::String(value.trim().to_owned()));
    target.insert(last.to_owned(), value);
    Some(Override {
        text,
        key: key.to_owned(),
        created,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides<'a>(file: &str, items: &'a [String]) -> Overrides<'a> {
        let mut table: Table = file.parse().unwrap();
        Overrides::apply(&mut table, items).ok().unwrap()
    }

    #[test]
    fn finds_the_override_that_set_a_key() {
        let items = ["a.b=1", "a.c={ d = 2 }", "x.y=3", "a.b=4"].map(str::to_owned);
        let overrides = overrides("[a]\nb = 0", &items);
        for (key, expected) in [
            ("a.b", Some("a.b=4")),
            ("a.c.d", Some("a.c={ d = 2 }")),
            ("x", Some("x.y=3")),
            ("x.y", Some("x.y=3")),
            // The file has the table, and a longer name is another key.
            ("a", None),
            ("a.bc", None),
        ] {
            assert_eq!(overrides.at(key), expected, "{key}");
        }
    }

    #[test]
    fn finds_the_override_that_a_message_names() {
        let items = ["a.b=1", "a.c=2"].map(str::to_owned);
        let overrides = overrides("", &items);
        assert_eq!(overrides.named_in("a.b is 1"), Some("a.b=1"));
        assert_eq!(
            overrides.named_in("a.b must be below a.c, 2"),
            Some("a.c=2")
        );
        assert_eq!(overrides.named_in("a.bc is 1"), None);
    }
}

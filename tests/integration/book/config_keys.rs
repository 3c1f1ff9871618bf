//! `docs/config.md` against the config's types: every key is in its tables, and each default is the
//! one that applies.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rgby::labels::hpa_classes;
use rgby::train::Config;
use toml::{Table, Value};

use super::root;

/// The least that a config must say.
const LEAST: &str = "\
[model]
arch = \"resnet50\"
input_size = 64
[train]
epochs = 1
batch_size = 1
[optimizer]
name = \"adadelta\"
";
/// A default that stands in the table of rules.
const BY_RULE: &str = "[by rule](#constants-by-rule)";
/// Where `train.stages[].epochs` and its kin stand in a config.
const STAGES: &str = "train.stages[]";

/// The cells of a table's rows, for those whose first cell begins with `` ` `` and `beginning`.
fn rows(beginning: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/config.md")).unwrap();
    let lines = page
        .lines()
        .filter(|line| line.starts_with(&format!("| `{beginning}")));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    lines.map(cells).collect()
}

/// The rows of the tables of keys.
fn keys() -> Vec<Vec<String>> {
    let tables = ["model.", "train.", "optimizer.", "data."].iter();
    let rows = tables.flat_map(|table| rows(table));
    // That of the table of rules names two keys.
    rows.filter(|row| !row[0].contains(',')).collect()
}

/// A config with everything resolved, and `set`.
fn resolved(set: &[String]) -> Result<Table, String> {
    let config = Config::parse("config.md", LEAST, set).map_err(|error| error.to_string())?;
    Ok(Table::try_from(config).unwrap())
}

/// The keys that a table knows, by what the parser says to one that it does not.
fn known(table: &str) -> Vec<String> {
    let unknown = match table {
        STAGES => "train.stages=[{epochs=1,not_a_key=1}]".to_owned(),
        table => format!("{table}.not_a_key=1"),
    };
    let error = resolved(&[unknown]).unwrap_err();
    let (_, list) = error.split_once("expected").unwrap();
    let words = list.lines().next().unwrap().split('`').skip(1).step_by(2);
    words.map(|key| format!("{table}.{key}")).collect()
}

fn get<'a>(config: &'a Table, key: &str) -> Option<&'a Value> {
    let mut parts = key.split('.');
    let mut value = config.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    Some(value)
}

/// Equality of numbers as far as float32 goes; of all else as it is.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-6 * b.abs(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        _ => a == b,
    }
}

fn value(text: &str) -> Value {
    let table: Table = format!("value = {text}").parse().unwrap();
    table["value"].clone()
}

/// The default in force, and what the page says: `` `VALUE` ``, or `none`.
fn assert_default(key: &str, said: &str, set: &[String]) {
    let config = resolved(set).unwrap();
    let found = get(&config, key);
    if said == "none" {
        // An empty list of stages is not written.
        assert_eq!(found, None, "{key}");
        return;
    }
    let wanted = value(said.trim_matches('`'));
    assert!(
        found.is_some_and(|found| same(found, &wanted)),
        "{key} is {found:?} with {set:?}; the page says {wanted:?}"
    );
}

fn assert_required(key: &str) {
    let name = key.rsplit('.').next().unwrap();
    let text = LEAST
        .lines()
        .filter(|line| !line.starts_with(&format!("{name} =")));
    let text: Vec<&str> = text.collect();
    let error = match key.strip_prefix(STAGES) {
        Some(_) => resolved(&["train.stages=[{lr=1.0}]".into()]).unwrap_err(),
        None => Config::parse("config.md", &text.join("\n"), &[])
            .unwrap_err()
            .to_string(),
    };
    assert!(
        error.contains(&format!("missing field `{name}`")),
        "{key}: {error}"
    );
}

#[test]
fn every_key_is_on_the_page_and_every_key_of_the_page_exists() {
    let tables = [
        "model",
        "train",
        STAGES,
        "optimizer",
        "data",
        "data.augment",
    ];
    let known = tables.iter().flat_map(|table| known(table));
    let known: BTreeSet<String> = known.filter(|key| key != "data.augment").collect();
    let listed = keys().into_iter();
    let listed: Vec<String> = listed
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let once: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(listed.len(), once.len(), "a key stands twice: {listed:?}");
    assert_eq!(once, known);
    assert!(known.len() > 40);
}

#[test]
fn defaults_are_as_the_page_says() {
    for row in keys() {
        let (key, said) = (row[0].trim_matches('`'), row[1].as_str());
        match said {
            "required" => assert_required(key),
            BY_RULE => assert!(key.starts_with("optimizer."), "{key}"),
            "the 28 classes" => {
                let names = hpa_classes().into_iter().map(Value::String);
                let config = resolved(&[]).unwrap();
                assert_eq!(get(&config, key), Some(&Value::Array(names.collect())));
            }
            _ if key.starts_with(STAGES) => {
                let config = resolved(&["train.stages=[{epochs=1}]".into()]).unwrap();
                let stage = &get(&config, "train.stages").unwrap()[0];
                let found = stage.get(key.rsplit('.').next().unwrap());
                let wanted = (said != "none").then(|| value(said.trim_matches('`')));
                assert_eq!(found, wanted.as_ref(), "{key}");
            }
            said => {
                for clause in said.split("; ") {
                    let (said, with) = clause.split_once(" with ").unwrap_or((clause, ""));
                    let with = with.trim_matches('`').to_owned();
                    let set: Vec<String> =
                        Some(with).filter(|w| !w.is_empty()).into_iter().collect();
                    assert_default(key, said, &set);
                }
            }
        }
    }
}

#[test]
fn the_constants_of_each_rule_are_as_the_page_says() {
    let heads = rows("optimizer.name`, `");
    let constants = &heads[0][1..];
    let by_rule = keys().into_iter().filter(|row| row[1] == BY_RULE);
    let by_rule: BTreeSet<String> = by_rule
        .map(|row| row[0].replace("optimizer.", ""))
        .collect();
    assert_eq!(constants.iter().cloned().collect::<BTreeSet<_>>(), by_rule);
    let mut seen = BTreeMap::new();
    for rule in ["adadelta", "adam", "adamw", "sgd"] {
        for row in rows(&format!("{rule}`,")) {
            let whose = row[0].split('`').nth(3).unwrap();
            *seen.entry(rule).or_insert(0) += 1;
            let set = ["name", "constants"].map(|key| format!("optimizer.{key}="));
            let set = [format!("{}{rule}", set[0]), format!("{}{whose}", set[1])];
            for (key, said) in constants.iter().zip(&row[1..]) {
                let key = key.trim_matches('`');
                let said = if said == "–" { "none" } else { said.as_str() };
                assert_default(&format!("optimizer.{key}"), said, &set);
                if said == "none" {
                    let given = if key == "nesterov" { "true" } else { "0.5" };
                    let given = format!("optimizer.{key}={given}");
                    let set = [set[0].clone(), set[1].clone(), given];
                    let error = resolved(&set).unwrap_err();
                    assert!(error.contains(&format!("optimizer.{key}")), "{error}");
                }
            }
        }
    }
    let counts: Vec<_> = seen.into_iter().collect();
    assert_eq!(
        counts,
        [("adadelta", 3), ("adam", 3), ("adamw", 2), ("sgd", 3)]
    );
    let error =
        resolved(&["optimizer.name=adamw", "optimizer.constants=keras-2.0.8"].map(String::from));
    assert!(error.unwrap_err().contains("no adamw"));
}

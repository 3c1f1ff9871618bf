//! Compares `docs/config.md` with the config's types: the page lists every key, and the defaults
//! are correct.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use rgby::labels::hpa_classes;
use rgby::train::Config;
use toml::{Table, Value};

use super::root;

/// The smallest valid config.
const MINIMAL: &str = "\
[model]
arch = \"resnet50\"
input_size = 64
[train]
epochs = 1
batch_size = 1
[optimizer]
name = \"adadelta\"
";
/// Default of a key whose value depends on the optimizer. The page has a separate table for these.
const BY_RULE: &str = "[by rule](#constants-by-rule)";
/// Prefix of the keys of a stage, such as `train.stages[].epochs`.
const STAGES: &str = "train.stages[]";

/// Returns the cells of all table rows whose first cell starts with `` ` `` and `prefix`.
fn rows(prefix: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/config.md")).unwrap();
    let lines = page
        .lines()
        .filter(|line| line.starts_with(&format!("| `{prefix}")));
    let cells = |line: &str| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    };
    lines.map(cells).collect()
}

/// Returns the rows of the tables of keys.
fn keys() -> Vec<Vec<String>> {
    let tables = ["model.", "train.", "optimizer.", "data."].iter();
    let rows = tables.flat_map(|table| rows(table));
    // The header of the table of optimizer constants has two keys in its first cell.
    rows.filter(|row| !row[0].contains(',')).collect()
}

/// Resolves the minimal config with the overrides in `set`.
fn resolved(set: &[String]) -> Result<Table, String> {
    let config = Config::parse("config.md", MINIMAL, set).map_err(|error| error.to_string())?;
    Ok(Table::try_from(config).unwrap())
}

/// Returns the keys of a table. The parser lists them in its error for an unknown key.
fn valid_keys(table: &str) -> Vec<String> {
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

/// Compares floats with the precision of float32, and all other values exactly.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Float(a), Value::Float(b)) => (a - b).abs() <= 1e-6 * b.abs(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
        }
        _ => a == b,
    }
}

fn value(text: &str) -> Value {
    let table: Table = format!("value = {text}").parse().unwrap();
    table["value"].clone()
}

/// Asserts that a default equals the page's cell: `` `VALUE` ``, or `none`.
fn assert_default(key: &str, cell: &str, set: &[String]) {
    let config = resolved(set).unwrap();
    let found = get(&config, key);
    if cell == "none" {
        // An empty list of stages is not serialized.
        assert_eq!(found, None, "{key}");
        return;
    }
    let expected = value(cell.trim_matches('`'));
    assert!(
        found.is_some_and(|found| equal(found, &expected)),
        "{key} is {found:?} with {set:?}; the page has {expected:?}"
    );
}

fn assert_required(key: &str) {
    let name = key.rsplit('.').next().unwrap();
    let text = MINIMAL
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
fn page_lists_exactly_the_existing_keys() {
    let tables = [
        "model",
        "train",
        STAGES,
        "optimizer",
        "data",
        "data.augment",
    ];
    let existing = tables.iter().flat_map(|table| valid_keys(table));
    let existing: BTreeSet<String> = existing.filter(|key| key != "data.augment").collect();
    let listed = keys().into_iter();
    let listed: Vec<String> = listed
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect();
    let unique: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(
        listed.len(),
        unique.len(),
        "a key is listed twice: {listed:?}"
    );
    assert_eq!(unique, existing);
    assert!(existing.len() > 40);
}

#[test]
fn page_has_the_correct_defaults() {
    for row in keys() {
        let (key, cell) = (row[0].trim_matches('`'), row[1].as_str());
        match cell {
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
                let expected = (cell != "none").then(|| value(cell.trim_matches('`')));
                assert_eq!(found, expected.as_ref(), "{key}");
            }
            cell => {
                for clause in cell.split("; ") {
                    let (default, with) = clause.split_once(" with ").unwrap_or((clause, ""));
                    let with = with.trim_matches('`').to_owned();
                    let set: Vec<String> =
                        Some(with).filter(|w| !w.is_empty()).into_iter().collect();
                    assert_default(key, default, &set);
                }
            }
        }
    }
}

#[test]
fn page_has_the_correct_optimizer_constants() {
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
            let source = row[0].split('`').nth(3).unwrap();
            *seen.entry(rule).or_insert(0) += 1;
            let set = [
                format!("optimizer.name={rule}"),
                format!("optimizer.constants={source}"),
            ];
            for (key, cell) in constants.iter().zip(&row[1..]) {
                let key = key.trim_matches('`');
                let default = if cell == "–" { "none" } else { cell.as_str() };
                assert_default(&format!("optimizer.{key}"), default, &set);
                if default == "none" {
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

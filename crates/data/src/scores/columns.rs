//! Assignment of columns to classes.

use std::collections::HashSet;

use super::ScoresFault;
use rgby_common::labels::{HPA_CLASSES, hpa_classes};

/// Columns with more than this number of Human Protein Atlas class names are those classes.
const HPA_MINIMUM: usize = HPA_CLASSES.len() / 2;

/// Columns in class order.
#[derive(Debug, PartialEq)]
pub(super) struct ColumnOrder {
    pub classes: Vec<String>,
    /// Column index of each class.
    pub columns: Vec<usize>,
    /// A note for the user if the columns were reordered.
    pub note: Option<String>,
}

/// Orders columns as described at [`read_scores`](super::read_scores).
pub(super) fn order(
    columns: &[String],
    classes: Option<&[String]>,
) -> Result<ColumnOrder, ScoresFault> {
    let mut seen = HashSet::new();
    if let Some(twice) = columns.iter().find(|name| !seen.insert(name.as_str())) {
        return Err(ScoresFault::DuplicateColumn(twice.clone()));
    }
    let known = HPA_CLASSES.iter().filter(|name| seen.contains(*name));
    let numbers: Option<Vec<usize>> = columns.iter().map(|name| name.parse().ok()).collect();
    let order = match (classes, numbers) {
        (names, Some(numbers)) => by_number(columns, &numbers, names)?,
        (Some(classes), None) => by_name(columns, classes.to_vec())?,
        (None, None) if known.count() > HPA_MINIMUM => by_name(columns, hpa_classes())?,
        (None, None) => ColumnOrder {
            classes: columns.to_vec(),
            columns: (0..columns.len()).collect(),
            note: None,
        },
    };
    let reordered = order
        .columns
        .iter()
        .enumerate()
        .any(|(class, &at)| class != at);
    Ok(ColumnOrder {
        note: reordered.then(|| "its columns were not in class order and were reordered".into()),
        ..order
    })
}

fn by_name(columns: &[String], classes: Vec<String>) -> Result<ColumnOrder, ScoresFault> {
    let others: Vec<&String> = columns
        .iter()
        .filter(|name| !classes.contains(name))
        .collect();
    let mut order = Vec::with_capacity(classes.len());
    for (number, name) in classes.iter().enumerate() {
        let at = columns.iter().position(|column| column == name);
        order.push(at.ok_or_else(|| ScoresFault::MissingClass {
            number,
            name: name.clone(),
            others: match &others[..] {
                [] => String::new(),
                [other, ..] => format!(" (but an unknown column `{other}`)"),
            },
        })?);
    }
    if let Some(other) = others.first() {
        return Err(ScoresFault::UnknownClass((*other).clone()));
    }
    Ok(ColumnOrder {
        classes,
        columns: order,
        note: None,
    })
}

/// Columns with numbers as names are the classes of these numbers.
fn by_number(
    columns: &[String],
    numbers: &[usize],
    names: Option<&[String]>,
) -> Result<ColumnOrder, ScoresFault> {
    let count = names.map_or(columns.len(), <[String]>::len);
    let mut order = Vec::with_capacity(count);
    for number in 0..count {
        let at = numbers.iter().position(|column| *column == number);
        order.push(at.ok_or_else(|| ScoresFault::MissingClass {
            number,
            name: names.map_or_else(|| number.to_string(), |names| names[number].clone()),
            others: String::new(),
        })?);
    }
    if let Some(at) = numbers.iter().position(|number| *number >= count) {
        return Err(ScoresFault::UnknownClass(columns[at].clone()));
    }
    let classes = match names {
        Some(names) => names.to_vec(),
        None if count == HPA_CLASSES.len() => hpa_classes(),
        None => (0..count).map(|number| format!("Class {number}")).collect(),
    };
    Ok(ColumnOrder {
        classes,
        columns: order,
        note: None,
    })
}

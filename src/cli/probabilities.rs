//! Probabilities from a CSV file, as `rgby score --scores` or any other program wrote them.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use csv::StringRecord;

/// The probabilities of a scores file.
#[derive(Debug, PartialEq)]
pub struct Probabilities {
    /// Names of the classes: the columns after `Id`.
    pub classes: Vec<String>,
    /// A row of probabilities, 0–1, for each id; `None` where its fields are empty, because the
    /// sample could not be scored.
    pub rows: HashMap<String, Option<Vec<f32>>>,
}

impl Probabilities {
    /// Reads a CSV file with a header, `Id` and one column of probabilities a class.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or a line is wrong; the message names both.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        read(path).with_context(|| format!("scores file {}", path.display()))
    }
}

fn read(path: &Path) -> anyhow::Result<Probabilities> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)?;
    let header = reader.headers()?.clone();
    ensure!(
        header.get(0) == Some("Id") && header.len() > 1,
        "its header must be `Id` and one column a class, as `rgby score --scores` writes it"
    );
    let mut rows = HashMap::new();
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let id = record.get(0).unwrap_or_default().to_owned();
        ensure!(!id.is_empty(), "line {line}: the id is empty");
        let row = parse_row(&record, &header).with_context(|| format!("line {line}"))?;
        if rows.insert(id, row).is_some() {
            let id = record.get(0).unwrap_or_default();
            bail!("line {line}: the id `{id}` is there a second time; keep one of them");
        }
    }
    Ok(Probabilities {
        classes: header.iter().skip(1).map(str::to_owned).collect(),
        rows,
    })
}

/// The probabilities of one line, or `None` if all its fields are empty.
fn parse_row(record: &StringRecord, header: &StringRecord) -> anyhow::Result<Option<Vec<f32>>> {
    if record.iter().skip(1).all(str::is_empty) {
        return Ok(None);
    }
    let parse = |(field, class): (&str, &str)| match field.parse() {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        _ => bail!("`{field}` in column `{class}` is not a probability from 0 to 1"),
    };
    let fields = record.iter().zip(header).skip(1);
    Ok(Some(fields.map(parse).collect::<anyhow::Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> anyhow::Result<Probabilities> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scores.csv");
        std::fs::write(&path, text).unwrap();
        Probabilities::read(&path)
    }

    #[test]
    fn scores_are_read_by_id() {
        let read = read_text("Id,Nucleus,\"Golgi, cis\"\nb,0.5,1e-9\na,,\n").unwrap();
        assert_eq!(read.classes, ["Nucleus", "Golgi, cis"]);
        assert_eq!(read.rows.len(), 2);
        assert_eq!(read.rows["b"], Some(vec![0.5, 1e-9]));
        assert_eq!(read.rows["a"], None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("", "its header must be `Id`"),
            ("Id\na\n", "one column a class"),
            ("Id,Target\na,0 1\n", "line 2: `0 1` in column `Target`"),
            ("Id,x\na,0.5\nb,1.5\n", "line 3: `1.5` in column `x`"),
            ("Id,x\na,NaN\n", "`NaN`"),
            ("Id,x,y\na,0.5,\n", "`` in column `y`"),
            ("Id,x\n,0.5\n", "line 2: the id is empty"),
            ("Id,x\na,0.5\na,0.5\n", "line 3: the id `a`"),
            ("Id,x\na,0.5,0.5\n", "3 fields"),
        ] {
            let error = format!("{:#}", read_text(text).unwrap_err());
            assert!(
                error.contains(wanted) && error.contains("scores.csv"),
                "{error}"
            );
        }
    }
}

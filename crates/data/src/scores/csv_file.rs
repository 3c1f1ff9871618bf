//! CSV: `Id` and one column of probabilities per class.

use std::path::Path;

use csv::StringRecord;

use super::{ScoreRows, Scores, ScoresFault};

pub(super) fn read(path: &Path, classes: Option<&[String]>) -> Result<Scores, ScoresFault> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_path(path)?;
    let header = reader.headers()?.clone();
    let first = header.get(0).unwrap_or_default();
    if first != "Id" || header.len() < 2 {
        return Err(ScoresFault::Header(first.to_owned()));
    }
    let columns = header.iter().skip(1).map(str::to_owned).collect();
    let mut rows = ScoreRows::new(columns, classes)?;
    let mut record = StringRecord::new();
    let mut values = Vec::new();
    while reader.read_record(&mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        let place = move || format!("line {line}");
        let id = record.get(0).unwrap_or_default();
        values.clear();
        if record.iter().skip(1).all(str::is_empty) {
            rows.push(id, None, &place)?;
            continue;
        }
        for (at, field) in record.iter().skip(1).enumerate() {
            let value = field.parse();
            values.push(value.map_err(|_| rows.not_a_probability(at, field.to_owned(), &place))?);
        }
        rows.push(id, Some(&values), &place)?;
    }
    rows.finish()
}

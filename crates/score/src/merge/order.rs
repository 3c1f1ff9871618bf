//! The order of the result, and the proof that each id is there exactly once.

use super::MergeError;
use super::part::MergePart;

/// A row of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct PartPosition {
    pub(super) part: u32,
    pub(super) row: u32,
}

impl PartPosition {
    pub(super) fn id(self, parts: &[MergePart]) -> &str {
        &parts[self.part as usize].ids[self.row as usize]
    }
}

/// The rows in the order of `ids`, else by id.
pub(super) fn find(
    parts: &[MergePart],
    ids: Option<&[String]>,
) -> Result<Vec<PartPosition>, MergeError> {
    let mut places = Vec::new();
    for (part, content) in parts.iter().enumerate() {
        places.extend((0..content.ids.len()).map(|row| PartPosition {
            part: part as u32,
            row: row as u32,
        }));
    }
    // Of the same id, the part that was named first comes first.
    places.sort_by_key(|place| place.id(parts));
    for pair in places.windows(2) {
        if pair[0].id(parts) == pair[1].id(parts) {
            let path = |place: PartPosition| parts[place.part as usize].name();
            return Err(MergeError::Twice {
                id: pair[0].id(parts).to_owned(),
                first: path(pair[0]),
                second: path(pair[1]),
            });
        }
    }
    match ids {
        Some(ids) => in_order_of(parts, &places, ids),
        None => Ok(places),
    }
}

/// The places, sorted by id, in the order of `ids`, which must be the same ids.
fn in_order_of(
    parts: &[MergePart],
    places: &[PartPosition],
    ids: &[String],
) -> Result<Vec<PartPosition>, MergeError> {
    let mut order = Vec::with_capacity(ids.len());
    let mut asked = vec![false; places.len()];
    let mut missing = Vec::new();
    for id in ids {
        match places.binary_search_by_key(&id.as_str(), |place| place.id(parts)) {
            Ok(at) => {
                asked[at] = true;
                order.push(places[at]);
            }
            Err(_) => missing.push(id.clone()),
        }
    }
    let others = places.iter().zip(&asked).filter(|(_, asked)| !**asked);
    let extra: Vec<String> = others
        .map(|(place, _)| place.id(parts).to_owned())
        .collect();
    if missing.is_empty() && extra.is_empty() {
        Ok(order)
    } else {
        Err(MergeError::Ids { missing, extra })
    }
}

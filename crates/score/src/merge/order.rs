//! The order of the result, and the proof that each id occurs exactly once.

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

/// Returns the rows in the order of `ids`, else by id.
pub(super) fn find(
    parts: &[MergePart],
    ids: Option<&[String]>,
) -> Result<Vec<PartPosition>, MergeError> {
    let mut positions = Vec::new();
    for (part, content) in parts.iter().enumerate() {
        positions.extend((0..content.ids.len()).map(|row| PartPosition {
            part: part as u32,
            row: row as u32,
        }));
    }
    // Rows of the same id stay in the order of the parts.
    positions.sort_by_key(|position| position.id(parts));
    for pair in positions.windows(2) {
        if pair[0].id(parts) == pair[1].id(parts) {
            let path = |position: PartPosition| parts[position.part as usize].name();
            return Err(MergeError::DuplicateId {
                id: pair[0].id(parts).to_owned(),
                first: path(pair[0]),
                second: path(pair[1]),
            });
        }
    }
    match ids {
        Some(ids) => in_order_of(parts, &positions, ids),
        None => Ok(positions),
    }
}

/// Reorders the positions, sorted by id, in the order of `ids`, which must be the same ids.
fn in_order_of(
    parts: &[MergePart],
    positions: &[PartPosition],
    ids: &[String],
) -> Result<Vec<PartPosition>, MergeError> {
    let mut order = Vec::with_capacity(ids.len());
    let mut is_listed = vec![false; positions.len()];
    let mut missing = Vec::new();
    for id in ids {
        match positions.binary_search_by_key(&id.as_str(), |position| position.id(parts)) {
            Ok(at) => {
                is_listed[at] = true;
                order.push(positions[at]);
            }
            Err(_) => missing.push(id.clone()),
        }
    }
    let others = positions
        .iter()
        .zip(&is_listed)
        .filter(|(_, is_listed)| !**is_listed);
    let extra: Vec<String> = others
        .map(|(position, _)| position.id(parts).to_owned())
        .collect();
    if missing.is_empty() && extra.is_empty() {
        Ok(order)
    } else {
        Err(MergeError::Ids { missing, extra })
    }
}

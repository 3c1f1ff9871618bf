//! Checks by manifests that parts belong together and are complete.

use std::collections::HashMap;

use super::super::{Decision, KeyDifference, ResultManifest, Shard};
use super::error::{MergeError, SHOWN};
use super::part::MergePart;

/// Checks that the parts have the same columns and, by their manifests, are all shards of one run.
/// Returns whether there are manifests. With `ids_known`, images may have changed between the runs,
/// because the ids prove completeness.
pub(super) fn check(parts: &[MergePart], ids_known: bool) -> Result<bool, MergeError> {
    let first = &parts[0];
    for part in parts {
        if part.columns != first.columns {
            return Err(differ(first, part, "their columns differ"));
        }
    }
    let mut known = Vec::new();
    for part in parts {
        match (&part.manifest, &first.manifest) {
            (Some(manifest), Some(_)) => known.push((part, manifest)),
            (None, None) => {}
            (Some(_), None) => return Err(only_one_has_a_manifest(part, first)),
            (None, Some(_)) => return Err(only_one_has_a_manifest(first, part)),
        }
    }
    if known.is_empty() {
        return Ok(false);
    }
    check_results(&known)?;
    check_shards(&known, ids_known)?;
    Ok(true)
}

fn only_one_has_a_manifest(with: &MergePart, without: &MergePart) -> MergeError {
    MergeError::SomeManifests {
        with: with.name(),
        without: without.name(),
    }
}

fn differ(first: &MergePart, second: &MergePart, what: impl Into<String>) -> MergeError {
    MergeError::Differ {
        first: first.name(),
        second: second.name(),
        what: what.into(),
    }
}

type Known<'a> = [(&'a MergePart, &'a ResultManifest)];

/// Checks that all parts depend on the same inputs and options.
fn check_results(known: &Known) -> Result<(), MergeError> {
    let (first, wanted) = known[0];
    for (part, manifest) in known {
        if manifest.kind != wanted.kind {
            return Err(differ(first, part, "they hold different kinds of results"));
        }
        let mut differences = wanted.run.result_differences(&manifest.run);
        if let Some(decision) = &manifest.decision {
            differences.extend(Decision::differences(wanted.decision.as_ref(), decision));
        }
        if !differences.is_empty() {
            let [left, right] = [first, part].map(|part| format!("in {}", part.file));
            let what = KeyDifference::describe(&differences, &left, &right);
            return Err(differ(first, part, what));
        }
    }
    Ok(())
}

/// Checks that each shard occurs once, and that all are shards of the same samples.
fn check_shards(known: &Known, ids_known: bool) -> Result<(), MergeError> {
    let (first, wanted) = known[0];
    let count = wanted.run.shard.map(Shard::count);
    let mut seen: HashMap<u32, &MergePart> = HashMap::new();
    for (part, manifest) in known {
        if manifest.run.shard.map(Shard::count) != count {
            let what =
                "one is a shard and the other is not, or they have different numbers of shards";
            return Err(differ(first, part, what));
        }
        let Some(shard) = manifest.run.shard else {
            continue;
        };
        if let Some(other) = seen.insert(shard.index(), part) {
            return Err(MergeError::SameShard {
                shard,
                first: other.name(),
                second: part.name(),
            });
        }
        let same = |a: &ResultManifest, b: &ResultManifest| {
            (&a.run.samples, a.run.listed) == (&b.run.samples, b.run.listed)
        };
        if !ids_known && !same(wanted, manifest) {
            return Err(MergeError::Listing {
                first: (first.name(), wanted.run.listed),
                second: (part.name(), manifest.run.listed),
            });
        }
    }
    let Some(count) = count else { return Ok(()) };
    // A manifest may claim any number of shards, so only the first missing ones are listed.
    let missing = (0..count).filter(|i| !seen.contains_key(i));
    let first: Vec<u32> = missing.take(SHOWN + 1).collect();
    if first.is_empty() {
        return Ok(());
    }
    Err(MergeError::MissingShards {
        count,
        missing: count - seen.len() as u32,
        first,
    })
}

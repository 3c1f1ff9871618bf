//! Images that are there twice.

use std::collections::HashMap;

use super::pixels::{Hash, Seen};
use super::{Problem, ProblemKind};
use rgby_imaging::Sample;

/// Finds samples whose channels all equal another's, and else channels that equal another's.
/// Channels of one gray value are no copies of each other.
///
/// `classes` are the labels of each sample that has any.
pub(super) fn duplicates(
    samples: &[Sample],
    seen: &[Seen],
    classes: &HashMap<&str, &[u16]>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut whole: HashMap<&[Option<Hash>], usize> = HashMap::new();
    let mut single: HashMap<Hash, (usize, usize)> = HashMap::new();
    for (number, (sample, looked)) in samples.iter().zip(seen).enumerate() {
        let hashes = &looked.hashes[..];
        // A sample that lacks a channel, or has a constant one, is told by those that it has.
        if hashes.iter().any(Option::is_some) {
            if let Some(&first) = whole.get(hashes) {
                problems.push(same_sample(sample, &samples[first], classes));
                continue;
            }
            whole.insert(hashes, number);
        }
        for (channel, hash) in hashes.iter().enumerate() {
            let Some(hash) = *hash else { continue };
            match single.get(&hash) {
                None => {
                    single.insert(hash, (number, channel));
                }
                Some(&(first, of)) => {
                    let twin = (&samples[first], of);
                    problems.push(same_image((sample, channel), twin));
                }
            }
        }
    }
    problems
}

fn same_sample(sample: &Sample, first: &Sample, classes: &HashMap<&str, &[u16]>) -> Problem {
    let of = |sample: &Sample| classes.get(sample.id.as_str()).copied();
    let labels = match (of(sample), of(first)) {
        (Some(one), Some(other)) if one != other => ", and their labels differ",
        _ => "",
    };
    let message = format!("has the same pixels as `{}`{labels}", first.id);
    Problem::new(
        ProblemKind::DuplicateSample,
        &sample.id,
        String::new(),
        message,
    )
}

fn same_image((sample, channel): (&Sample, usize), (first, of): (&Sample, usize)) -> Problem {
    let file = |sample: &Sample, channel: usize| {
        let path = sample.files[channel].as_ref();
        path.map_or_else(String::new, |path| path.display().to_string())
    };
    let message = format!(
        "{} has the same pixels as {} of `{}` in {}",
        sample.channels[channel],
        first.channels[of],
        first.id,
        file(first, of)
    );
    let file = file(sample, channel);
    Problem::new(ProblemKind::DuplicateImage, &sample.id, file, message)
}

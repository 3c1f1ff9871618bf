//! Detection of duplicate images.

use std::collections::HashMap;

use super::pixels::{PixelHash, SampleSurvey};
use super::{Problem, ProblemKind};
use rgby_imaging::Sample;

/// Returns samples whose channels all equal those of an earlier sample, and single channels that
/// equal an earlier channel. Constant channels are not compared.
///
/// `classes` are the labels of each labelled sample.
pub(super) fn duplicates(
    samples: &[Sample],
    surveys: &[SampleSurvey],
    classes: &HashMap<&str, &[u16]>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut by_sample: HashMap<&[Option<PixelHash>], usize> = HashMap::new();
    let mut by_channel: HashMap<PixelHash, (usize, usize)> = HashMap::new();
    for (number, (sample, survey)) in samples.iter().zip(surveys).enumerate() {
        let hashes = &survey.hashes[..];
        // Missing and constant channels have no hash; the other channels identify the sample.
        if hashes.iter().any(Option::is_some) {
            if let Some(&first) = by_sample.get(hashes) {
                problems.push(same_sample(sample, &samples[first], classes));
                continue;
            }
            by_sample.insert(hashes, number);
        }
        for (channel, hash) in hashes.iter().enumerate() {
            let Some(hash) = *hash else { continue };
            match by_channel.get(&hash) {
                None => {
                    by_channel.insert(hash, (number, channel));
                }
                Some(&(first, first_channel)) => {
                    let first = (&samples[first], first_channel);
                    problems.push(same_image((sample, channel), first));
                }
            }
        }
    }
    problems
}

fn same_sample(sample: &Sample, first: &Sample, classes: &HashMap<&str, &[u16]>) -> Problem {
    let classes_of = |sample: &Sample| classes.get(sample.id.as_str()).copied();
    let labels = match (classes_of(sample), classes_of(first)) {
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

fn same_image(
    (sample, channel): (&Sample, usize),
    (first, first_channel): (&Sample, usize),
) -> Problem {
    let file = |sample: &Sample, channel: usize| {
        let path = sample.files[channel].as_ref();
        path.map_or_else(String::new, |path| path.display().to_string())
    };
    let message = format!(
        "{} has the same pixels as {} of `{}` in {}",
        sample.channels[channel],
        first.channels[first_channel],
        first.id,
        file(first, first_channel)
    );
    let file = file(sample, channel);
    Problem::new(ProblemKind::DuplicateImage, &sample.id, file, message)
}

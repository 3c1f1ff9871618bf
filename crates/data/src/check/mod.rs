//! What is wrong with a labelled data set, all of it at once.
//!
//! Where [`Dataset::open`](super::Dataset::open) stops at the first thing that makes training
//! impossible, a [`Check`] goes on: it reads every line of the labels, decodes every file, and
//! lists whatever it finds. Of each image only its size, a hash and the counts of its gray values
//! are kept.

mod duplicates;
mod pixels;
mod problem;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde::Serialize;
use thiserror::Error;

use self::duplicates::duplicates;
use self::pixels::{Histogram, PixelSurvey, SampleSurvey};
use super::{
    ImageManifestFault, Images, ImagesError, LabelError, LabelFault, LabelLine, LabelProblem,
    PatternError, survey_labels,
};
use rgby_imaging::{FindError, Sample};

pub use self::pixels::ChannelStatistics;
pub use self::problem::{Problem, ProblemKind, RARE, Severity};

/// A channel whose brightest pixel in all images is below this is dark.
const DARK: u8 = 64;

/// What a data set should hold.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The channels of each sample.
    pub stains: Vec<String>,
    /// Names of the classes.
    pub classes: Vec<String>,
}

/// Why a data set could not be checked at all.
#[derive(Debug, Error)]
pub enum CheckError {
    /// The labels file cannot be read.
    #[error(transparent)]
    Labels(#[from] LabelError),
    /// The images cannot be found.
    #[error(transparent)]
    Images(#[from] ImagesError),
}

/// A data set whose labels were read and whose samples were listed, before any image is opened.
#[derive(Debug)]
pub struct Check {
    expected: Expected,
    lines: Vec<LabelLine>,
    samples: Vec<Sample>,
    problems: Vec<Problem>,
    /// Whether the samples could be listed.
    listed: bool,
}

/// All that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// Samples that the labels file names.
    pub labelled: usize,
    /// Samples that have any image.
    pub samples: usize,
    /// How many samples carry each class.
    pub classes: Vec<ClassCount>,
    /// The gray values of each channel.
    pub channels: Vec<ChannelStatistics>,
    /// Sizes, the most frequent first.
    pub sizes: Vec<SizeCount>,
    /// What is wrong: by kind, and within a kind in the order of the labels or of the ids.
    pub problems: Vec<Problem>,
}

/// How many samples carry a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClassCount {
    /// Its number.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// Samples.
    pub samples: usize,
}

/// How many samples have a size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Samples whose first readable image has it.
    pub samples: usize,
}

impl Check {
    /// Reads the labels and lists the samples. A folder or manifest that contradicts itself is a
    /// problem of kind [`ProblemKind::Images`]; then there are no samples.
    ///
    /// # Errors
    ///
    /// [`CheckError`] if the labels cannot be read, or if there are no images where they should be.
    pub fn begin(images: &Images, labels: &Path, expected: Expected) -> Result<Self, CheckError> {
        let (lines, wrong) = survey_labels(labels, expected.classes.len())?;
        let file = labels.display().to_string();
        let mut problems: Vec<Problem> = wrong.iter().map(|w| label_problem(w, &file)).collect();
        let (samples, listed) = match images.find(&expected.stains) {
            Ok(samples) => (samples, true),
            Err(error) if contradicts(&error) => {
                let images = images.path.display().to_string();
                problems.push(Problem::new(
                    ProblemKind::Images,
                    "",
                    images,
                    error.to_string(),
                ));
                (Vec::new(), false)
            }
            Err(error) => return Err(error.into()),
        };
        let empty = lines.iter().filter(|line| line.classes.is_empty());
        // A line whose only labels are unknown was listed for that.
        let told: HashSet<&str> = wrong.iter().map(|wrong| wrong.id.as_str()).collect();
        let empty = empty.filter(|line| !told.contains(line.id.as_str()));
        problems.extend(empty.map(|line| {
            let message = format!("has no class on line {}", line.line);
            Problem::new(ProblemKind::EmptyLabel, &line.id, file.clone(), message)
        }));
        Ok(Self {
            expected,
            lines,
            samples,
            problems,
            listed,
        })
    }

    /// How many samples have images.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// Decodes every image, on all cores, and puts everything together. `done` is called after
    /// each sample.
    #[must_use]
    pub fn finish(mut self, done: &(dyn Fn() + Sync)) -> Checked {
        let mut pixels = PixelSurvey::run(&self.samples, self.expected.stains.len(), done);
        let mut problems = std::mem::take(&mut self.problems);
        if self.listed {
            problems.extend(self.unmatched());
        }
        for seen in &mut pixels.samples {
            problems.append(&mut seen.problems);
        }
        let classes = self.lines.iter().filter(|line| !line.classes.is_empty());
        let classes: HashMap<&str, &[u16]> = classes
            .map(|line| (line.id.as_str(), &line.classes[..]))
            .collect();
        problems.extend(duplicates(&self.samples, &pixels.samples, &classes));
        let sizes = sizes(&pixels.samples);
        problems.extend(unusual_sizes(&self.samples, &pixels.samples, &sizes));
        let channels = self.channels(&pixels.histograms);
        problems.extend(channels.iter().filter_map(dark));
        let counts = self.class_counts();
        problems.extend(counts.iter().filter_map(few));
        problems.sort_by_key(|problem| problem.kind);
        Checked {
            labelled: self.lines.len(),
            samples: self.samples.len(),
            classes: counts,
            channels,
            sizes,
            problems,
        }
    }

    /// Labels without images, and images without labels.
    fn unmatched(&self) -> Vec<Problem> {
        let labelled: HashSet<&str> = self.lines.iter().map(|line| line.id.as_str()).collect();
        let there: HashSet<&str> = self.samples.iter().map(|s| s.id.as_str()).collect();
        let bare = self
            .lines
            .iter()
            .filter(|line| !there.contains(line.id.as_str()));
        let bare = bare.map(|line| {
            let message = format!("is on line {} of the labels, and has no image", line.line);
            Problem::new(ProblemKind::NoImages, &line.id, String::new(), message)
        });
        let extra = self
            .samples
            .iter()
            .filter(|s| !labelled.contains(s.id.as_str()));
        let extra = extra.map(|sample| {
            let file = sample.paths().next().map(|path| path.display().to_string());
            let message = "is not in the labels file".to_owned();
            Problem::new(
                ProblemKind::NoLabel,
                &sample.id,
                file.unwrap_or_default(),
                message,
            )
        });
        bare.chain(extra).collect()
    }

    fn channels(&self, histograms: &[Histogram]) -> Vec<ChannelStatistics> {
        let stains = self.expected.stains.iter().zip(histograms);
        stains
            .map(|(stain, histogram)| histogram.statistics(stain))
            .collect()
    }

    fn class_counts(&self) -> Vec<ClassCount> {
        let mut counts = vec![0; self.expected.classes.len()];
        for &class in self.lines.iter().flat_map(|line| &line.classes) {
            counts[usize::from(class)] += 1;
        }
        let named = self.expected.classes.iter().zip(counts).enumerate();
        let count = |(class, (name, samples)): (usize, (&String, usize))| ClassCount {
            class,
            name: name.clone(),
            samples,
        };
        named.map(count).collect()
    }
}

impl Checked {
    /// Takes problems of these kinds as meant: they become warnings.
    pub fn allow(&mut self, kinds: &[ProblemKind]) {
        let allowed = self.problems.iter_mut().filter(|p| kinds.contains(&p.kind));
        allowed.for_each(|problem| problem.severity = Severity::Warning);
    }

    /// How many problems there are of a severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let problems = self.problems.iter();
        problems
            .filter(|problem| problem.severity == severity)
            .count()
    }
}

/// Whether the images are there but contradict each other; else there is nothing to check.
fn contradicts(error: &ImagesError) -> bool {
    match error {
        ImagesError::Find(FindError::Ambiguous { .. } | FindError::NotText(_))
        | ImagesError::Pattern(PatternError::Ambiguous { .. } | PatternError::NotText(_))
        | ImagesError::Channels { .. } => true,
        ImagesError::Manifest(error) => matches!(
            error.fault,
            ImageManifestFault::DuplicateId { .. } | ImageManifestFault::EmptyId(_)
        ),
        _ => false,
    }
}

fn label_problem(wrong: &LabelProblem, file: &str) -> Problem {
    let kind = match wrong.fault {
        LabelFault::DuplicateId { .. } => ProblemKind::DuplicateId,
        LabelFault::NotAClass { .. } | LabelFault::ClassOutOfRange { .. } => {
            ProblemKind::UnknownLabel
        }
        _ => ProblemKind::LabelLine,
    };
    Problem::new(kind, &wrong.id, file.to_owned(), wrong.fault.to_string())
}

fn sizes(seen: &[SampleSurvey]) -> Vec<SizeCount> {
    let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for size in seen.iter().filter_map(|seen| seen.size) {
        *counts.entry(size).or_default() += 1;
    }
    let count = |((width, height), samples)| SizeCount {
        width,
        height,
        samples,
    };
    let mut counts: Vec<SizeCount> = counts.into_iter().map(count).collect();
    counts.sort_by_key(|size| std::cmp::Reverse(size.samples));
    counts
}

/// Samples whose size fewer than one in ten have, where most have one size.
fn unusual_sizes(samples: &[Sample], seen: &[SampleSurvey], sizes: &[SizeCount]) -> Vec<Problem> {
    let all: usize = sizes.iter().map(|size| size.samples).sum();
    let Some(most) = sizes.first().filter(|size| 2 * size.samples > all) else {
        return Vec::new();
    };
    let rare = sizes.iter().filter(|size| 10 * size.samples < all);
    let rare: HashSet<(u32, u32)> = rare.map(|size| (size.width, size.height)).collect();
    let unusual = |(sample, seen): (&Sample, &SampleSurvey)| {
        let (width, height) = seen.size.filter(|size| rare.contains(size))?;
        let message = format!(
            "is {width}×{height} pixels; most samples are {}×{}",
            most.width, most.height
        );
        Some(Problem::new(
            ProblemKind::UnusualSize,
            &sample.id,
            String::new(),
            message,
        ))
    };
    samples.iter().zip(seen).filter_map(unusual).collect()
}

fn dark(channel: &ChannelStatistics) -> Option<Problem> {
    let max = channel.max.filter(|&max| max < DARK)?;
    let message = format!("{} is never brighter than {max} of 255", channel.channel);
    Some(Problem::new(
        ProblemKind::DarkChannel,
        "",
        String::new(),
        message,
    ))
}

fn few(class: &ClassCount) -> Option<Problem> {
    let (kind, message) = match class.samples {
        0 => (
            ProblemKind::AbsentClass,
            format!("no sample carries class {} ({})", class.class, class.name),
        ),
        1..RARE => (
            ProblemKind::RareClass,
            format!(
                "{} samples carry class {} ({})",
                class.samples, class.class, class.name
            ),
        ),
        _ => return None,
    };
    Some(Problem::new(kind, "", String::new(), message))
}

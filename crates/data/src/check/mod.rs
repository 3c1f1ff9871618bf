//! Validation of a labelled data set: all problems at once.
//!
//! [`Dataset::open`](super::Dataset::open) stops at the first problem that prevents training.
//! [`check_data`] instead reads every line of the labels, decodes every file and lists all problems.
//! It keeps only the size, a hash and the histogram of each image.

mod duplicates;
mod pixels;
mod problem;
mod report;
#[cfg(test)]
mod tests;
mod text;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use thiserror::Error;

use self::duplicates::duplicates;
use self::pixels::{Histogram, PixelSurvey, SampleSurvey};
use super::{
    ImageManifestFault, Images, ImagesError, LabelError, LabelFault, LabelLine, LabelProblem,
    PatternError, survey_labels,
};
use rgby_common::observer::Observer;
use rgby_imaging::{FindError, Sample};

pub use self::pixels::ChannelStatistics;
pub use self::problem::{Problem, ProblemKind, RARE, Severity};
pub use self::report::{CheckReport, ClassCount, SizeCount};

/// A channel is dark if its brightest pixel in all images is below this value.
const DARK: u8 = 64;
/// Name of the task in progress reports.
const TASK: &str = "checking";

/// The data set to check, and what it should contain.
#[derive(Debug, Clone)]
pub struct CheckConfig {
    pub images: Images,
    /// CSV with labels, `Id,Target`.
    pub labels: PathBuf,
    /// Channels that each sample must have.
    pub stains: Vec<String>,
    /// Class names.
    pub classes: Vec<String>,
    /// Kinds of errors to report as warnings.
    pub allow: Vec<ProblemKind>,
}

/// Why a data set cannot be checked.
#[derive(Debug, Error)]
pub enum CheckError {
    #[error(transparent)]
    Labels(#[from] LabelError),
    #[error(transparent)]
    Images(#[from] ImagesError),
}

/// Checks a labelled data set: reads all labels, decodes all images on all cores.
///
/// Reports progress in samples as the task `checking`.
///
/// # Errors
///
/// [`CheckError`] if the labels cannot be read, or if there are no images.
pub fn check_data(
    config: &CheckConfig,
    observer: &dyn Observer,
) -> Result<CheckReport, CheckError> {
    let survey = DatasetSurvey::begin(config)?;
    let mut report = survey.finish(observer);
    report.allow(&config.allow);
    Ok(report)
}

/// A data set with its labels read and its samples listed, before any image is opened.
struct DatasetSurvey<'a> {
    config: &'a CheckConfig,
    lines: Vec<LabelLine>,
    samples: Vec<Sample>,
    problems: Vec<Problem>,
    /// Whether the samples could be listed.
    listed: bool,
}

impl<'a> DatasetSurvey<'a> {
    /// Reads the labels and lists the samples. An inconsistent folder or manifest is a problem of
    /// kind [`ProblemKind::Images`], with no samples.
    ///
    /// # Errors
    ///
    /// [`CheckError`] if the labels cannot be read, or if no images are found.
    fn begin(config: &'a CheckConfig) -> Result<Self, CheckError> {
        let (images, labels) = (&config.images, &config.labels);
        let (lines, label_problems) = survey_labels(labels, config.classes.len())?;
        let file = labels.display().to_string();
        let mut problems: Vec<Problem> = label_problems
            .iter()
            .map(|p| label_problem(p, &file))
            .collect();
        let (samples, listed) = match images.find(&config.stains) {
            Ok(samples) => (samples, true),
            Err(error) if is_inconsistent(&error) => {
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
        // A line with unknown labels only was already listed for those.
        let listed_ids: HashSet<&str> = label_problems.iter().map(|p| p.id.as_str()).collect();
        let empty = empty.filter(|line| !listed_ids.contains(line.id.as_str()));
        problems.extend(empty.map(|line| {
            let message = format!("has no class on line {}", line.line);
            Problem::new(ProblemKind::EmptyLabel, &line.id, file.clone(), message)
        }));
        Ok(Self {
            config,
            lines,
            samples,
            problems,
            listed,
        })
    }

    /// Decodes every image and combines all findings.
    fn finish(mut self, observer: &dyn Observer) -> CheckReport {
        let (done, total) = (AtomicUsize::new(0), self.samples.len());
        observer.progress(TASK, 0, total);
        let count = || {
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            observer.progress(TASK, done, total);
        };
        let mut pixels = PixelSurvey::run(&self.samples, self.config.stains.len(), &count);
        let mut problems = std::mem::take(&mut self.problems);
        if self.listed {
            problems.extend(self.unmatched());
        }
        for survey in &mut pixels.samples {
            problems.append(&mut survey.problems);
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
        CheckReport {
            images: self.config.images.path.clone(),
            label_file: self.config.labels.clone(),
            labelled: self.lines.len(),
            samples: self.samples.len(),
            classes: counts,
            channels,
            sizes,
            problems,
        }
    }

    /// Returns labels without images and images without labels.
    fn unmatched(&self) -> Vec<Problem> {
        let labelled: HashSet<&str> = self.lines.iter().map(|line| line.id.as_str()).collect();
        let with_images: HashSet<&str> = self.samples.iter().map(|s| s.id.as_str()).collect();
        let without_images = self
            .lines
            .iter()
            .filter(|line| !with_images.contains(line.id.as_str()));
        let without_images = without_images.map(|line| {
            let message = format!("is on line {} of the labels and has no image", line.line);
            Problem::new(ProblemKind::NoImages, &line.id, String::new(), message)
        });
        let without_label = self
            .samples
            .iter()
            .filter(|s| !labelled.contains(s.id.as_str()));
        let without_label = without_label.map(|sample| {
            let file = sample.paths().next().map(|path| path.display().to_string());
            let message = "is not in the labels file".to_owned();
            Problem::new(
                ProblemKind::NoLabel,
                &sample.id,
                file.unwrap_or_default(),
                message,
            )
        });
        without_images.chain(without_label).collect()
    }

    fn channels(&self, histograms: &[Histogram]) -> Vec<ChannelStatistics> {
        let stains = self.config.stains.iter().zip(histograms);
        stains
            .map(|(stain, histogram)| histogram.statistics(stain))
            .collect()
    }

    fn class_counts(&self) -> Vec<ClassCount> {
        let mut counts = vec![0; self.config.classes.len()];
        for &class in self.lines.iter().flat_map(|line| &line.classes) {
            counts[usize::from(class)] += 1;
        }
        let named = self.config.classes.iter().zip(counts).enumerate();
        let count = |(class, (name, samples)): (usize, (&String, usize))| ClassCount {
            class,
            name: name.clone(),
            samples,
        };
        named.map(count).collect()
    }
}

/// Returns whether images exist but are inconsistent. Otherwise there is nothing to check.
fn is_inconsistent(error: &ImagesError) -> bool {
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

fn label_problem(problem: &LabelProblem, file: &str) -> Problem {
    let kind = match problem.fault {
        LabelFault::DuplicateId { .. } => ProblemKind::DuplicateId,
        LabelFault::NotAClass { .. } | LabelFault::ClassOutOfRange { .. } => {
            ProblemKind::UnknownLabel
        }
        _ => ProblemKind::LabelLine,
    };
    Problem::new(
        kind,
        &problem.id,
        file.to_owned(),
        problem.fault.to_string(),
    )
}

fn sizes(surveys: &[SampleSurvey]) -> Vec<SizeCount> {
    let mut counts: BTreeMap<(u32, u32), usize> = BTreeMap::new();
    for size in surveys.iter().filter_map(|survey| survey.size) {
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

/// Returns samples whose size is rarer than 10 %, if more than half of all samples have one size.
fn unusual_sizes(
    samples: &[Sample],
    surveys: &[SampleSurvey],
    sizes: &[SizeCount],
) -> Vec<Problem> {
    let all: usize = sizes.iter().map(|size| size.samples).sum();
    let Some(most) = sizes.first().filter(|size| 2 * size.samples > all) else {
        return Vec::new();
    };
    let rare = sizes.iter().filter(|size| 10 * size.samples < all);
    let rare: HashSet<(u32, u32)> = rare.map(|size| (size.width, size.height)).collect();
    let unusual = |(sample, survey): (&Sample, &SampleSurvey)| {
        let (width, height) = survey.size.filter(|size| rare.contains(size))?;
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
    samples.iter().zip(surveys).filter_map(unusual).collect()
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
            format!("no sample has class {} ({})", class.class, class.name),
        ),
        1..RARE => (
            ProblemKind::RareClass,
            format!(
                "{} samples have class {} ({})",
                class.samples, class.class, class.name
            ),
        ),
        _ => return None,
    };
    Some(Problem::new(kind, "", String::new(), message))
}

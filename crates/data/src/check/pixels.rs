//! One pass over all images: histograms, sizes and pixel hashes.

use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Problem, ProblemKind};
use rgby_imaging::{DecodeLimits, Sample, SampleFile, for_each_file};

/// First half of the SHA-256 over an image's size and pixels.
pub(super) type PixelHash = [u8; 16];

/// Properties of one sample that are kept after its pixels are dropped.
#[derive(Debug)]
pub(super) struct SampleSurvey {
    /// Width and height of the first readable file.
    pub size: Option<(u32, u32)>,
    /// One hash per channel; `None` for unreadable and constant channels.
    pub hashes: Vec<Option<PixelHash>>,
    pub problems: Vec<Problem>,
}

/// Counts of each gray value in one channel of all images. Counts are integers, so the statistics
/// are exact and do not depend on the order of the images.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    images: u64,
    constant: u64,
    counts: Box<[u64; 256]>,
}

/// Gray value statistics of one channel over all readable images. `None` without pixels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelStatistics {
    pub channel: String,
    pub images: u64,
    /// Number of pixels in all images.
    pub pixels: u64,
    /// Mean of values scaled to 0–1.
    pub mean: Option<f64>,
    /// Population standard deviation of values scaled to 0–1.
    pub std: Option<f64>,
    /// Minimum, 0–255.
    pub min: Option<u8>,
    /// Maximum, 0–255.
    pub max: Option<u8>,
    /// Fraction of the pixels at 255.
    pub saturated: Option<f64>,
    /// Fraction of the pixels at 0.
    pub black: Option<f64>,
    /// Number of images with a single gray value.
    pub constant_images: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            images: 0,
            constant: 0,
            counts: Box::new([0; 256]),
        }
    }
}

impl Histogram {
    /// Adds an image. Returns its gray value if it is constant.
    fn add(&mut self, plane: &[u8]) -> Option<u8> {
        // Four tables, so that equal adjacent pixels do not wait for the same counter.
        let mut tables = [[0_u32; 256]; 4];
        for four in plane.chunks(4) {
            for (table, &value) in tables.iter_mut().zip(four) {
                table[usize::from(value)] += 1;
            }
        }
        let mut counts = [0_u64; 256];
        for table in tables {
            for (count, more) in counts.iter_mut().zip(table) {
                *count += u64::from(more);
            }
        }
        let first = plane.first().copied();
        let constant = first.filter(|&v| counts[usize::from(v)] == plane.len() as u64);
        self.images += 1;
        self.constant += u64::from(constant.is_some());
        self.add_counts(&counts);
        constant
    }

    fn add_counts(&mut self, counts: &[u64; 256]) {
        for (count, more) in self.counts.iter_mut().zip(counts) {
            *count += more;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.images += other.images;
        self.constant += other.constant;
        self.add_counts(&other.counts);
    }

    pub fn statistics(&self, channel: &str) -> ChannelStatistics {
        let pixels: u64 = self.counts.iter().sum();
        let values = || (0_u8..=255).zip(self.counts.iter().copied());
        let present = || values().filter(|&(_, count)| count > 0).map(|(v, _)| v);
        let share = |part: f64| (pixels > 0).then(|| part / pixels as f64);
        let mean = share(values().map(|(v, n)| f64::from(v) * n as f64).sum());
        let variance = mean.and_then(|mean| {
            let square = |(v, n): (u8, u64)| (f64::from(v) - mean).powi(2) * n as f64;
            share(values().map(square).sum())
        });
        ChannelStatistics {
            channel: channel.to_owned(),
            images: self.images,
            pixels,
            mean: mean.map(|mean| mean / 255.0),
            std: variance.map(|variance| variance.sqrt() / 255.0),
            min: present().next(),
            max: present().next_back(),
            saturated: share(self.counts[255] as f64),
            black: share(self.counts[0] as f64),
            constant_images: self.constant,
        }
    }
}

/// Surveys of a contiguous range of samples, and their histograms per channel.
#[derive(Debug, Default)]
pub(super) struct PixelSurvey {
    pub samples: Vec<SampleSurvey>,
    pub histograms: Vec<Histogram>,
}

impl PixelSurvey {
    /// Decodes every file of all samples, one file per thread at a time. `done` is called after
    /// each sample.
    pub fn run(samples: &[Sample], channels: usize, done: &(dyn Fn() + Sync)) -> Self {
        let none = || Self {
            samples: Vec::new(),
            histograms: vec![Histogram::default(); channels],
        };
        samples
            .par_iter()
            .fold(none, |mut pixels, sample| {
                let survey = survey(sample, &mut pixels.histograms);
                pixels.samples.push(survey);
                done();
                pixels
            })
            .reduce(none, |mut pixels, more| {
                pixels.samples.extend(more.samples);
                for (all, some) in pixels.histograms.iter_mut().zip(&more.histograms) {
                    all.merge(some);
                }
                pixels
            })
    }
}

/// Decodes each file of one sample and adds its pixels to `histograms`.
fn survey(sample: &Sample, histograms: &mut [Histogram]) -> SampleSurvey {
    let mut survey = SampleSurvey {
        size: None,
        hashes: vec![None; sample.channels.len()],
        problems: Vec::new(),
    };
    let mut first_file = String::new();
    let missing: Vec<&str> = sample.missing_channels().collect();
    if !missing.is_empty() {
        let message = format!("has no file for {}", missing.join(", "));
        survey.add(ProblemKind::MissingChannel, sample, String::new(), message);
    }
    for_each_file(sample, &DecodeLimits::default(), &mut |file: SampleFile| {
        let path = file.path.display().to_string();
        let planes = match file.planes {
            Ok(planes) => planes,
            Err(error) => {
                survey.add(ProblemKind::Unreadable, sample, path, error.to_string());
                return;
            }
        };
        let size = (planes.width, planes.height);
        if let Some(first) = survey.size.filter(|&first| first != size) {
            let message = format!(
                "is {}×{} pixels, but {first_file} is {}×{}",
                size.0, size.1, first.0, first.1
            );
            survey.add(ProblemKind::SizeDiffers, sample, path.clone(), message);
        }
        if survey.size.is_none() {
            survey.size = Some(size);
            first_file.clone_from(&path);
        }
        for (index, channel) in (file.first..file.first + file.channels).enumerate() {
            let plane = planes.plane(index).unwrap_or_default();
            if let Some(value) = histograms[channel].add(plane) {
                let name = &sample.channels[channel];
                let message = format!("{name} is {value} of 255 in every pixel");
                survey.add(ProblemKind::ConstantImage, sample, path.clone(), message);
            } else {
                survey.hashes[channel] = Some(hash(size, plane));
            }
        }
    });
    survey
}

impl SampleSurvey {
    fn add(&mut self, kind: ProblemKind, sample: &Sample, file: String, message: String) {
        self.problems
            .push(Problem::new(kind, &sample.id, file, message));
    }
}

fn hash((width, height): (u32, u32), plane: &[u8]) -> PixelHash {
    let mut hasher = Sha256::new();
    hasher.update(width.to_le_bytes());
    hasher.update(height.to_le_bytes());
    hasher.update(plane);
    let mut half = PixelHash::default();
    half.copy_from_slice(&hasher.finalize()[..16]);
    half
}

//! What one look at every image tells: histograms, sizes, hashes of pixels.

use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{Problem, ProblemKind};
use rgby_imaging::{DecodeLimits, Sample, SampleFile, each_part};

/// The first half of a SHA-256 over an image's size and pixels.
pub(super) type Hash = [u8; 16];

/// What of a sample is kept once its pixels are gone.
#[derive(Debug)]
pub(super) struct Seen {
    /// Width and height of its first readable file.
    pub size: Option<(u32, u32)>,
    /// A hash for each channel that could be read and is not of one gray value.
    pub hashes: Vec<Option<Hash>>,
    pub problems: Vec<Problem>,
}

/// How often each gray value is there in one channel of all images. Counts are whole numbers, so
/// that the statistics are exact and the same in whatever order the images were read.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    images: u64,
    constant: u64,
    counts: Box<[u64; 256]>,
}

/// The gray values of one channel over all images that could be read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelStatistics {
    /// The stain.
    pub channel: String,
    /// Images.
    pub images: u64,
    /// Pixels of all of them.
    pub pixels: u64,
    /// Mean of all pixels, of values scaled to 0–1; none where there are no pixels.
    pub mean: Option<f64>,
    /// Their standard deviation (that of a population), of values scaled to 0–1.
    pub std: Option<f64>,
    /// Lowest gray value, 0–255.
    pub min: Option<u8>,
    /// Highest gray value, 0–255.
    pub max: Option<u8>,
    /// Share of the pixels at 255.
    pub saturated: Option<f64>,
    /// Share of the pixels at 0.
    pub black: Option<f64>,
    /// Images of one gray value throughout.
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
    /// Adds an image; returns its gray value if it has but one.
    fn add(&mut self, plane: &[u8]) -> Option<u8> {
        // Four tables, so that equal neighbours do not wait for each other's count.
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
        self.join(&counts);
        constant
    }

    fn join(&mut self, counts: &[u64; 256]) {
        for (count, more) in self.counts.iter_mut().zip(counts) {
            *count += more;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.images += other.images;
        self.constant += other.constant;
        self.join(&other.counts);
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

/// Some of the samples, in their order, and the pixels of all of them.
#[derive(Debug, Default)]
pub(super) struct PixelSurvey {
    pub seen: Vec<Seen>,
    pub histograms: Vec<Histogram>,
}

impl PixelSurvey {
    /// Decodes every file of all samples, one file a thread at a time. `done` is called after each
    /// sample.
    pub fn look(samples: &[Sample], channels: usize, done: &(dyn Fn() + Sync)) -> Self {
        let none = || Self {
            seen: Vec::new(),
            histograms: vec![Histogram::default(); channels],
        };
        samples
            .par_iter()
            .fold(none, |mut pixels, sample| {
                let seen = look(sample, &mut pixels.histograms);
                pixels.seen.push(seen);
                done();
                pixels
            })
            .reduce(none, |mut pixels, more| {
                pixels.seen.extend(more.seen);
                for (all, some) in pixels.histograms.iter_mut().zip(&more.histograms) {
                    all.merge(some);
                }
                pixels
            })
    }
}

/// Looks at each file of one sample.
fn look(sample: &Sample, histograms: &mut [Histogram]) -> Seen {
    let mut seen = Seen {
        size: None,
        hashes: vec![None; sample.channels.len()],
        problems: Vec::new(),
    };
    let mut first_file = String::new();
    let missing: Vec<&str> = sample.missing_channels().collect();
    if !missing.is_empty() {
        let message = format!("has no file for {}", missing.join(", "));
        seen.add(ProblemKind::MissingChannel, sample, String::new(), message);
    }
    each_part(sample, &DecodeLimits::default(), &mut |part: SampleFile| {
        let file = part.path.display().to_string();
        let planes = match part.planes {
            Ok(planes) => planes,
            Err(error) => {
                seen.add(ProblemKind::Unreadable, sample, file, error.to_string());
                return;
            }
        };
        let size = (planes.width, planes.height);
        if let Some(first) = seen.size.filter(|&first| first != size) {
            let message = format!(
                "is {}×{} pixels, but {first_file} is {}×{}",
                size.0, size.1, first.0, first.1
            );
            seen.add(ProblemKind::SizeDiffers, sample, file.clone(), message);
        }
        if seen.size.is_none() {
            seen.size = Some(size);
            first_file.clone_from(&file);
        }
        for (index, channel) in (part.first..part.first + part.channels).enumerate() {
            let plane = planes.plane(index).unwrap_or_default();
            if let Some(value) = histograms[channel].add(plane) {
                let name = &sample.channels[channel];
                let message = format!("{name} is {value} of 255 throughout");
                seen.add(ProblemKind::ConstantImage, sample, file.clone(), message);
            } else {
                seen.hashes[channel] = Some(hash(size, plane));
            }
        }
    });
    seen
}

impl Seen {
    fn add(&mut self, kind: ProblemKind, sample: &Sample, file: String, message: String) {
        self.problems
            .push(Problem::new(kind, &sample.id, file, message));
    }
}

fn hash((width, height): (u32, u32), plane: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(width.to_le_bytes());
    hasher.update(height.to_le_bytes());
    hasher.update(plane);
    let mut half = Hash::default();
    half.copy_from_slice(&hasher.finalize()[..16]);
    half
}

//! Whether probabilities are what they say.

use serde::Serialize;

use super::{Labelled, ratio};

/// Bins of equal width, as in Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural
/// Networks", 2017.
const BINS: usize = 15;

/// How often what was called probable was true.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error, 0–1: the mean over the probabilities of the gap between the mean
    /// probability of their bin and the share of it that is true.
    pub error: f64,
    /// The bins from 0 to 1, each without its lower end but the first.
    pub bins: Vec<CalibrationBin>,
}

/// Probabilities of about the same size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CalibrationBin {
    /// How many there are.
    pub count: usize,
    /// Their mean, 0 of none.
    pub mean_probability: f64,
    /// The share of them whose class is true, 0 of none.
    pub share_true: f64,
}

impl Calibration {
    /// Of pairs of a probability and the truth.
    #[must_use]
    pub fn of(pairs: impl Iterator<Item = (f32, bool)>) -> Self {
        let width = 1.0 / BINS as f64;
        let edges: Vec<f64> = (1..BINS).map(|edge| edge as f64 * width).collect();
        let mut sums = [(0_usize, 0.0, 0_usize); BINS];
        for (probability, truth) in pairs {
            let p = f64::from(probability);
            let (count, sum, hits) = &mut sums[edges.partition_point(|edge| *edge < p)];
            *count += 1;
            *sum += p;
            *hits += usize::from(truth);
        }
        let all: usize = sums.iter().map(|(count, ..)| count).sum();
        let bins = sums.map(|(count, sum, hits)| CalibrationBin {
            count,
            mean_probability: ratio(sum, count as f64),
            share_true: ratio(hits as f64, count as f64),
        });
        let gap =
            |bin: &CalibrationBin| bin.count as f64 * (bin.mean_probability - bin.share_true).abs();
        Self {
            error: ratio(bins.iter().map(gap).sum(), all as f64),
            bins: bins.to_vec(),
        }
    }

    /// Of all classes of `data` together.
    #[must_use]
    pub fn of_all(data: &Labelled) -> Self {
        Self::of((0..data.classes()).flat_map(|class| data.column(class)))
    }
}

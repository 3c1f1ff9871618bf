//! Expected calibration error.

use serde::Serialize;

use super::{Labelled, ratio};

/// Number of bins of equal width, as in Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern
/// Neural Networks", 2017.
const BINS: usize = 15;

/// Agreement of probabilities with the observed share of positives.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// Expected calibration error, 0–1: the gap between the mean probability of a bin and its share
    /// of positives, averaged over the probabilities.
    pub error: f64,
    /// Bins from 0 to 1, ascending. Only the first includes its lower end.
    pub bins: Vec<CalibrationBin>,
}

/// One bin of probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CalibrationBin {
    pub count: usize,
    /// Mean probability; 0 for an empty bin.
    pub mean_probability: f64,
    /// Share of positives, 0–1; 0 for an empty bin.
    pub share_true: f64,
}

impl Calibration {
    /// Computes the calibration of pairs of probability and truth.
    #[must_use]
    pub fn new(pairs: impl Iterator<Item = (f32, bool)>) -> Self {
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

    /// Computes the calibration over the probabilities of all classes of `data`.
    #[must_use]
    pub fn of_all(data: &Labelled) -> Self {
        Self::new((0..data.classes()).flat_map(|class| data.column(class)))
    }
}

//! Bootstrap over samples: estimates how much F1 varies between samples of the same kind.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use super::{ClassOutcomes, Decisions, f1_score, mean};

/// Number of bootstrap draws and their random seed.
///
/// A draw takes `n` of `n` samples with replacement. It depends only on the seed and its number, not
/// on the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    pub draws: usize,
    pub seed: u64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self {
            draws: 1000,
            seed: 0,
        }
    }
}

/// Macro-F1, micro-F1 and the F1 of each class.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct F1Scores {
    pub macro_f1: f64,
    pub micro_f1: f64,
    pub classes: Vec<f64>,
}

impl F1Scores {
    /// Computes the scores from the true positives, false positives and false negatives per class.
    fn new(counts: &[[usize; 3]]) -> Self {
        let classes: Vec<f64> = counts
            .iter()
            .map(|[a, b, c]| f1_score(*a, *b, *c))
            .collect();
        let total = |outcome: usize| counts.iter().map(|count| count[outcome]).sum();
        Self {
            macro_f1: mean(classes.iter().copied()),
            micro_f1: f1_score(total(0), total(1), total(2)),
            classes,
        }
    }

    /// Computes the scores of all samples, without resampling.
    pub fn observed(decisions: &Decisions) -> Self {
        Self::new(&counts(decisions))
    }
}

fn counts(decisions: &Decisions) -> Vec<[usize; 3]> {
    let classes = decisions.classes().iter();
    classes.map(ClassOutcomes::counts).collect()
}

impl Bootstrap {
    /// Returns the scores of each of `sets` in each draw: `[draws][sets]`.
    ///
    /// All sets must have the same samples; they share the draws.
    pub(super) fn scores(&self, sets: &[&Decisions]) -> Vec<Vec<F1Scores>> {
        let samples = sets.first().map_or(0, |set| set.samples());
        let numbers = (0..self.draws).into_par_iter();
        let scores = numbers.map_init(
            || vec![0_u16; samples],
            |weights, draw| {
                self.draw(draw as u64, weights);
                let scores = |set: &&Decisions| F1Scores::new(&weighted_counts(set, weights));
                sets.iter().map(scores).collect()
            },
        );
        scores.collect()
    }

    /// Fills `weights` with the number of times that each sample occurs in draw `number`.
    fn draw(&self, number: u64, weights: &mut [u16]) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        weights.fill(0);
        let samples = weights.len() as u32;
        for _ in 0..samples {
            weights[rng.random_range(0..samples) as usize] += 1;
        }
    }
}

/// Counts the outcomes of each class with a weight per sample.
fn weighted_counts(decisions: &Decisions, weights: &[u16]) -> Vec<[usize; 3]> {
    let sum = |list: &[u32]| {
        let counts = list
            .iter()
            .map(|&sample| u32::from(weights[sample as usize]));
        counts.sum::<u32>() as usize
    };
    let classes = decisions.classes().iter();
    classes
        .map(|class| {
            let ClassOutcomes {
                true_positives,
                false_positives,
                false_negatives,
            } = class;
            [true_positives, false_positives, false_negatives].map(|list| sum(list))
        })
        .collect()
}

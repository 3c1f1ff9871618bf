//! Resampling: what the score of other samples of the same kind would be.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;

use super::{Decisions, f1_score, mean};

/// How often samples are drawn, and from which random stream. A draw takes as many samples as
/// there are, with replacement; it depends on the seed and its number alone, not on threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Number of draws.
    pub draws: usize,
    /// Of the random stream.
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

/// F1 by what it is taken over: all classes' mean, all decisions pooled, each class.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scores {
    pub macro_f1: f64,
    pub micro_f1: f64,
    pub classes: Vec<f64>,
}

impl Scores {
    /// From hits, false alarms and misses of each class.
    fn of(counts: &[[usize; 3]]) -> Self {
        let classes: Vec<f64> = counts
            .iter()
            .map(|[a, b, c]| f1_score(*a, *b, *c))
            .collect();
        let total = |of: usize| counts.iter().map(|count| count[of]).sum();
        Self {
            macro_f1: mean(classes.iter().copied()),
            micro_f1: f1_score(total(0), total(1), total(2)),
            classes,
        }
    }

    /// Of the samples as they are.
    pub fn whole(decisions: &Decisions) -> Self {
        Self::of(&counts(decisions))
    }
}

fn counts(decisions: &Decisions) -> Vec<[usize; 3]> {
    let classes = decisions.classes().iter();
    classes
        .map(|c| [c.hits.len(), c.false_alarms.len(), c.misses.len()])
        .collect()
}

impl Bootstrap {
    /// The scores of each of `sets` in each draw: `[draws][sets]`. All sets, which must be of the
    /// same samples, see the same draws.
    pub(super) fn scores(&self, sets: &[&Decisions]) -> Vec<Vec<Scores>> {
        let samples = sets.first().map_or(0, |set| set.samples());
        let numbers = (0..self.draws).into_par_iter();
        let scores = numbers.map_init(
            || vec![0_u16; samples],
            |times, draw| {
                self.draw(draw as u64, times);
                let of = |set: &&Decisions| Scores::of(&weighted(set, times));
                sets.iter().map(of).collect()
            },
        );
        scores.collect()
    }

    /// How often each sample is in a draw.
    fn draw(&self, number: u64, times: &mut [u16]) {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(number);
        times.fill(0);
        let samples = times.len() as u32;
        for _ in 0..samples {
            times[rng.random_range(0..samples) as usize] += 1;
        }
    }
}

/// Hits, false alarms and misses of each class where samples count several times.
fn weighted(decisions: &Decisions, times: &[u16]) -> Vec<[usize; 3]> {
    let sum = |list: &[u32]| {
        let counts = list.iter().map(|&sample| u32::from(times[sample as usize]));
        counts.sum::<u32>() as usize
    };
    let classes = decisions.classes().iter();
    classes
        .map(|c| [sum(&c.hits), sum(&c.false_alarms), sum(&c.misses)])
        .collect()
}

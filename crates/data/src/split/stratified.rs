//! Folds that have the same share of every class, for samples with several classes each.

use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::random::{Purpose, generator};

/// The fold of each sample, from 0, by iterative stratification: Sechidis, Tsoumakas and Vlahavas,
/// "On the Stratification of Multi-Label Data", 2011.
///
/// Again and again the class with the fewest samples left, of equal ones the first, deals these
/// samples to the folds. Each goes to the fold that has the fewest samples of that class, of equal
/// ones to that with the fewest samples, of equal ones to a random one. So the rarest classes,
/// which a random split may leave out of a fold, are dealt while all folds can still take them.
/// Samples without a class are dealt last. (The paper asks which fold's desired number is furthest
/// off; with folds of equal size that is the fold that has the fewest.)
///
/// Classes come before sizes: folds of a small set without bare samples may differ in size by some
/// percent. The folds depend on the arguments alone.
#[must_use]
pub fn stratify(targets: &[Vec<u16>], num_classes: usize, folds: usize, seed: u64) -> Vec<usize> {
    let mut rng = generator(seed, Purpose::Stratify, [0; 2]);
    let mut order: Vec<_> = (0..targets.len()).collect();
    order.shuffle(&mut rng);
    let mut members = vec![Vec::new(); num_classes];
    for &sample in &order {
        for &class in &targets[sample] {
            members[usize::from(class)].push(sample);
        }
    }
    let mut left: Vec<usize> = members.iter().map(Vec::len).collect();
    let mut deal = Deal {
        targets,
        fold_of: vec![None; targets.len()],
        sizes: vec![0; folds],
        counts: vec![vec![0; folds]; num_classes],
        rng,
    };
    let rarest = |left: &[usize]| {
        let classes = (0..num_classes).filter(|&class| left[class] > 0);
        classes.min_by_key(|&class| left[class])
    };
    while let Some(class) = rarest(&left) {
        for &sample in &members[class] {
            if deal.fold_of[sample].is_none() {
                deal.give(sample, Some(class));
                for &class in &targets[sample] {
                    left[usize::from(class)] -= 1;
                }
            }
        }
    }
    for sample in order {
        if deal.fold_of[sample].is_none() {
            deal.give(sample, None);
        }
    }
    deal.fold_of.into_iter().flatten().collect()
}

/// Which samples the folds have so far.
struct Deal<'a> {
    targets: &'a [Vec<u16>],
    fold_of: Vec<Option<usize>>,
    /// Samples of each fold.
    sizes: Vec<usize>,
    /// Samples of each fold with each class, `[classes][folds]`.
    counts: Vec<Vec<usize>>,
    rng: ChaCha8Rng,
}

impl Deal<'_> {
    /// Gives a sample to the fold that lacks it most, judged by `class` first.
    fn give(&mut self, sample: usize, class: Option<usize>) {
        let has = |fold: usize| {
            (
                class.map_or(0, |class| self.counts[class][fold]),
                self.sizes[fold],
            )
        };
        let all = 0..self.sizes.len();
        let least = all.clone().map(has).min();
        let equal: Vec<_> = all.filter(|&fold| Some(has(fold)) == least).collect();
        let fold = equal.choose(&mut self.rng).copied().unwrap_or(0);
        self.fold_of[sample] = Some(fold);
        self.sizes[fold] += 1;
        for &class in &self.targets[sample] {
            self.counts[usize::from(class)][fold] += 1;
        }
    }
}

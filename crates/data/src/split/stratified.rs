//! Stratified folds for multi-label data sets.

use rand::rngs::ChaCha8Rng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::random::{Purpose, generator};

/// Returns the fold of each sample, from 0, by iterative stratification: Sechidis, Tsoumakas and
/// Vlahavas, "On the Stratification of Multi-Label Data", 2011.
///
/// Repeatedly, the samples of the class with the fewest unassigned samples (the first of equal
/// ones) are assigned. Each sample goes to the fold with the fewest samples of that class, then to
/// the smallest fold, then to a random one. So the rarest classes, which a random split may leave
/// out of a fold, are assigned first. Samples without class are assigned last. (The paper chooses
/// the fold with the largest difference to its desired count. With folds of equal size that is the
/// fold with the fewest samples.)
///
/// Class balance has priority over fold size: in a small data set without unlabelled samples, fold
/// sizes may differ by some percent. The folds depend only on the arguments.
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
    let mut unassigned: Vec<usize> = members.iter().map(Vec::len).collect();
    let mut assignment = FoldAssignment {
        targets,
        fold_of: vec![None; targets.len()],
        sizes: vec![0; folds],
        counts: vec![vec![0; folds]; num_classes],
        rng,
    };
    let rarest = |unassigned: &[usize]| {
        let classes = (0..num_classes).filter(|&class| unassigned[class] > 0);
        classes.min_by_key(|&class| unassigned[class])
    };
    while let Some(class) = rarest(&unassigned) {
        for &sample in &members[class] {
            if assignment.fold_of[sample].is_none() {
                assignment.assign(sample, Some(class));
                for &class in &targets[sample] {
                    unassigned[usize::from(class)] -= 1;
                }
            }
        }
    }
    for sample in order {
        if assignment.fold_of[sample].is_none() {
            assignment.assign(sample, None);
        }
    }
    assignment.fold_of.into_iter().flatten().collect()
}

/// State of a partial assignment of samples to folds.
struct FoldAssignment<'a> {
    targets: &'a [Vec<u16>],
    fold_of: Vec<Option<usize>>,
    /// Number of samples per fold.
    sizes: Vec<usize>,
    /// Number of samples, `[classes][folds]`.
    counts: Vec<Vec<usize>>,
    rng: ChaCha8Rng,
}

impl FoldAssignment<'_> {
    /// Assigns a sample to the fold with the fewest samples of `class`, then to the smallest fold.
    fn assign(&mut self, sample: usize, class: Option<usize>) {
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

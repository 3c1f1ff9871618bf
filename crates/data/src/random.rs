//! Random generators that follow from numbers alone, so that nothing about them needs saving.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// What a generator is for. Two purposes never share a stream, whatever the seed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// The order of a shuffled pass; its stream is older than the others and has no number.
    Order = 0,
    /// The order of a balanced pass, and which samples it repeats.
    Balance = 1,
    /// How a sample is varied.
    Augment = 2,
    /// Ties between folds.
    Stratify = 3,
}

/// The generator for draw `numbers` of a purpose.
pub(super) fn generator(seed: u64, purpose: Purpose, numbers: [u64; 2]) -> ChaCha8Rng {
    let words = [seed, numbers[0], purpose as u64, numbers[1]];
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

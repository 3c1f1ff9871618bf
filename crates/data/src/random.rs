//! Random generators that depend only on numbers, so that a checkpoint needs no generator state.

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

/// Use of a generator. Different purposes never share a stream, for any seed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Order of a shuffled pass. 0, because this stream existed before the others.
    Order = 0,
    /// Order and repetitions of a balanced pass.
    Balance = 1,
    /// Augmentation of a sample.
    Augment = 2,
    /// Tie-breaking between folds.
    Stratify = 3,
}

/// Returns the generator for draw `numbers` of a purpose.
pub(super) fn generator(seed: u64, purpose: Purpose, numbers: [u64; 2]) -> ChaCha8Rng {
    let words = [seed, numbers[0], purpose as u64, numbers[1]];
    let mut key = [0; 32];
    for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

//! The split into training and validation samples, and the order of the training samples.

use std::path::PathBuf;

use super::{Config, TrainError, TrainJob};
use crate::data::{
    Dataset, Sampler, Split, SplitIndices, balanced_len, balanced_order, epoch_order,
    repeat_factors,
};

/// Splits the data set into training and validation samples.
///
/// # Errors
///
/// The split cannot be read or leaves no training samples.
pub(super) fn split_samples(job: &TrainJob) -> Result<SplitIndices, TrainError> {
    let own_split = split_file(job);
    // A resumed run keeps its split, even if the file named in the config has changed since.
    let split = if job.resume && own_split.is_file() {
        &Split::File(own_split)
    } else {
        &job.config.data.split
    };
    let parts = split.split(&job.dataset, job.config.train.seed);
    let parts = parts.map_err(|error| TrainError::Data(error.to_string()))?;
    if parts.0.is_empty() {
        return Err(TrainError::Data(
            "data.split leaves no training samples".into(),
        ));
    }
    Ok(parts)
}

/// Path of the split that a run writes; other configs can use it as `file:`.
pub(super) fn split_file(job: &TrainJob) -> PathBuf {
    job.out.join("split.csv")
}

/// The training samples of a run.
pub(super) struct TrainingSamples {
    /// Indices into the data set.
    pub samples: Vec<usize>,
    /// How often the balanced sampler visits each sample in a pass.
    factors: Vec<f64>,
}

impl TrainingSamples {
    /// `threshold` is `data.balance_threshold`.
    pub fn new(dataset: &Dataset, samples: Vec<usize>, threshold: f64) -> Self {
        let factors = repeat_factors(dataset, &samples, threshold);
        Self { samples, factors }
    }

    /// Returns the sample indices of each step of an epoch. They depend on the epoch's number and
    /// the seed alone.
    pub fn epoch_steps(&self, config: &Config, epoch: u64) -> Vec<Vec<usize>> {
        let train = &config.train;
        let steps = |order: &[usize]| -> Vec<Vec<usize>> {
            order
                .chunks(train.step_size())
                .map(<[usize]>::to_vec)
                .collect()
        };
        let Some(count) = train.steps_per_epoch else {
            return steps(&self.pass(config, epoch));
        };
        // Epochs of equal length are consecutive parts of a stream of shuffled passes.
        let pass = match config.data.sampler {
            Sampler::Shuffle => self.samples.len(),
            Sampler::Balanced => balanced_len(&self.factors),
        };
        let length = count * train.step_size();
        let start = epoch as usize * length;
        let passes = start / pass..=(start + length - 1) / pass;
        let stream: Vec<usize> = passes.flat_map(|n| self.pass(config, n as u64)).collect();
        steps(&stream[start % pass..][..length])
    }

    /// Returns the order of pass `number` over the training samples.
    fn pass(&self, config: &Config, number: u64) -> Vec<usize> {
        let seed = config.train.seed;
        match config.data.sampler {
            Sampler::Shuffle => epoch_order(&self.samples, seed, number),
            Sampler::Balanced => balanced_order(&self.samples, &self.factors, seed, number),
        }
    }
}

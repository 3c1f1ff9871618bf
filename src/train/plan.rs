//! Which samples train, and which of them in each step.

use std::path::PathBuf;

use super::{Config, TrainError, TrainJob};
use crate::data::{
    Dataset, Sampler, Split, SplitIndices, balanced_len, balanced_order, epoch_order,
    repeat_factors,
};

/// The samples that train and those that validate.
pub(super) fn divide(job: &TrainJob) -> Result<SplitIndices, TrainError> {
    let written = split_file(job);
    // A resumed run keeps its split, even if the file that it came from has changed since.
    let split = if job.resume && written.is_file() {
        &Split::File(written)
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

/// Where a run writes its split, for `file:` in other configs.
pub(super) fn split_file(job: &TrainJob) -> PathBuf {
    job.out.join("split.csv")
}

/// The samples that train.
pub(super) struct Training {
    /// Their places in the data set.
    pub samples: Vec<usize>,
    /// How often the balanced sampler visits each of them in a pass.
    factors: Vec<f64>,
}

impl Training {
    /// `threshold` is `data.balance_threshold`.
    pub fn new(dataset: &Dataset, samples: Vec<usize>, threshold: f64) -> Self {
        let factors = repeat_factors(dataset, &samples, threshold);
        Self { samples, factors }
    }

    /// Sample indices of each step of an epoch, from its number and the seed alone.
    pub fn epoch(&self, config: &Config, epoch: u64) -> Vec<Vec<usize>> {
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
        // A stream of shuffled passes over the set, cut into epochs of equal length.
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

    /// The order of a pass over the set.
    fn pass(&self, config: &Config, number: u64) -> Vec<usize> {
        let seed = config.train.seed;
        match config.data.sampler {
            Sampler::Shuffle => epoch_order(&self.samples, seed, number),
            Sampler::Balanced => balanced_order(&self.samples, &self.factors, seed, number),
        }
    }
}

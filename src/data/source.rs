//! What the loaders of a run read from.

use std::sync::Arc;

use super::Dataset;
use crate::imaging::{DecodeLimits, Preprocess, SampleError, Variation, read_sample};

/// A data set and how its images become input; all loaders of a run share one.
#[derive(Debug)]
pub struct Source {
    dataset: Arc<Dataset>,
    preprocess: Arc<Preprocess>,
}

impl Source {
    /// Nothing is read yet. The data set's samples must have the preprocessing's stains.
    #[must_use]
    pub fn new(dataset: Arc<Dataset>, preprocess: Arc<Preprocess>) -> Self {
        Self {
            dataset,
            preprocess,
        }
    }

    /// The samples.
    #[must_use]
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// How they become input.
    #[must_use]
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Reads sample `index` into `out`, `[C, S, S]`. `vary` says how to show it, given its number
    /// of stains.
    pub(super) fn load(
        &self,
        index: usize,
        vary: impl FnOnce(usize) -> Variation,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        let planes = read_sample(&self.dataset.samples[index], &DecodeLimits::default())?;
        let variation = vary(planes.channels);
        self.preprocess.prepare(&planes, &variation, out);
        Ok(())
    }
}

//! What an exported model is tried on: a folder of images, or numbers made up for it.

use std::collections::HashMap;

use rayon::prelude::*;

use super::ExportError;
use crate::data::LabelTable;
use crate::imaging::{DecodeLimits, Preprocess, Preprocessor, Sample};
use crate::score::Failure;

/// Images in memory at a time.
const BATCH: usize = 8;
/// Images that are made up where none are given.
const MADE_UP: usize = 3 * BATCH;

/// Images for calibration and comparison.
pub struct Inputs {
    preparer: Preprocessor,
    /// `None`: they are made up.
    samples: Option<Vec<Sample>>,
    /// Is told how many of them are done, in each pass over them.
    watch: Option<Box<dyn Fn(usize) + Sync>>,
}

/// Some of the images, ready for the network.
pub(super) struct CheckBatch {
    /// Which images of [`Inputs`] they are.
    pub rows: Vec<usize>,
    /// `[rows, C, S, S]`.
    pub images: Vec<f32>,
}

impl Inputs {
    /// The samples of a folder.
    #[must_use]
    pub fn of_samples(samples: Vec<Sample>, preprocess: Preprocess) -> Self {
        Self {
            preparer: Preprocessor::new(preprocess),
            samples: Some(samples),
            watch: None,
        }
    }

    /// Numbers from −1 to 1.
    #[must_use]
    pub fn made_up(preprocess: Preprocess) -> Self {
        Self {
            preparer: Preprocessor::new(preprocess),
            samples: None,
            watch: None,
        }
    }

    /// Lets `watch` know how many images are done, in each pass over them.
    #[must_use]
    pub fn watched(mut self, watch: impl Fn(usize) + Sync + 'static) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }

    /// Whether no image was given.
    #[must_use]
    pub fn are_made_up(&self) -> bool {
        self.samples.is_none()
    }

    /// How many images there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.as_ref().map_or(MADE_UP, Vec::len)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of a batch of so many images.
    #[must_use]
    pub(super) fn shape(&self, batch: usize) -> [usize; 4] {
        let preprocess = self.preparer.preprocess();
        let side = preprocess.size as usize;
        [batch, preprocess.channels.len(), side, side]
    }

    /// The classes of each image by a table of labels; `None` for images that it has not.
    #[must_use]
    pub(super) fn targets<'t>(&self, labels: &'t LabelTable) -> Vec<Option<&'t [u16]>> {
        let known: HashMap<&str, &[u16]> = labels
            .ids
            .iter()
            .map(String::as_str)
            .zip(labels.targets.iter().map(Vec::as_slice))
            .collect();
        let samples = self.samples.iter().flatten();
        samples
            .map(|sample| known.get(sample.id.as_str()).copied())
            .collect()
    }

    /// Hands over all images in batches; returns those that cannot be read.
    ///
    /// # Errors
    ///
    /// What `each` returns, or [`ExportError::Unreadable`] if not one image can be read.
    pub(super) fn for_each(
        &self,
        mut each: impl FnMut(CheckBatch) -> Result<(), ExportError>,
    ) -> Result<Vec<Failure>, ExportError> {
        let mut failures = Vec::new();
        for start in (0..self.len()).step_by(BATCH) {
            let rows: Vec<usize> = (start..self.len().min(start + BATCH)).collect();
            let read: Vec<_> = rows.par_iter().map(|&row| self.image(row)).collect();
            let mut batch = CheckBatch {
                rows: Vec::new(),
                images: Vec::new(),
            };
            for (row, image) in rows.into_iter().zip(read) {
                match image {
                    Ok(image) => {
                        batch.rows.push(row);
                        batch.images.extend(image);
                    }
                    Err(failure) => failures.push(failure),
                }
            }
            if !batch.rows.is_empty() {
                each(batch)?;
            }
            if let Some(watch) = &self.watch {
                watch(self.len().min(start + BATCH));
            }
        }
        match failures.first() {
            Some(first) if failures.len() == self.len() => Err(ExportError::Unreadable {
                count: failures.len(),
                first: format!("{} {}: {}", first.id, first.file, first.error),
            }),
            _ => Ok(failures),
        }
    }

    fn image(&self, row: usize) -> Result<Vec<f32>, Failure> {
        let count = self.preparer.preprocess().input_len();
        let Some(samples) = &self.samples else {
            return Ok(made_up(row * count, count));
        };
        let mut image = vec![0.0; count];
        let sample = &samples[row];
        self.preparer
            .load(sample, &DecodeLimits::default(), &mut image)
            .map_err(|error| Failure {
                id: error.id,
                file: error.file,
                error: error.kind.to_string(),
            })?;
        Ok(image)
    }
}

/// Numbers from −1 to 1, in an order without a period that matches an image's rows.
pub(super) fn made_up(start: usize, count: usize) -> Vec<f32> {
    (start..start + count)
        .map(|i| ((i * 7919 % 65_521) as f32 / 32_760.5) - 1.0)
        .collect()
}

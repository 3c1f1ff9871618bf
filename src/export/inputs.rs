//! Inputs for calibrating and comparing models: images of a folder, or synthetic numbers.

use std::collections::HashMap;

use rayon::prelude::*;

use super::ExportError;
use crate::data::LabelTable;
use crate::imaging::{DecodeLimits, Preprocess, Preprocessor, Sample};
use crate::observer::Observer;
use crate::score::Failure;

/// Number of images in memory at a time.
const BATCH: usize = 8;
/// Number of synthetic images.
const SYNTHETIC: usize = 3 * BATCH;
/// Name of the task in progress reports.
pub(super) const TASK: &str = "calibrating and comparing";

/// Images for calibration and comparison.
pub struct CalibrationInputs<'a> {
    preparer: Preprocessor,
    /// The samples of a folder; synthetic numbers if absent.
    samples: Option<Vec<Sample>>,
    /// Receives the number of images done in each pass over them.
    observer: &'a dyn Observer,
}

/// A batch of the images, prepared for the network.
pub(super) struct CheckBatch {
    /// Indices of the images in [`CalibrationInputs`].
    pub rows: Vec<usize>,
    /// `[rows, C, S, S]`.
    pub images: Vec<f32>,
}

impl<'a> CalibrationInputs<'a> {
    /// Uses the samples of a folder; `observer` receives the progress of each pass over them.
    #[must_use]
    pub fn from_samples(
        samples: Vec<Sample>,
        preprocess: Preprocess,
        observer: &'a dyn Observer,
    ) -> Self {
        Self {
            preparer: Preprocessor::new(preprocess),
            samples: Some(samples),
            observer,
        }
    }

    /// Uses synthetic numbers from −1 to 1.
    #[must_use]
    pub fn synthetic(preprocess: Preprocess) -> Self {
        Self {
            preparer: Preprocessor::new(preprocess),
            samples: None,
            observer: &(),
        }
    }

    /// Returns whether the inputs are synthetic.
    #[must_use]
    pub fn are_synthetic(&self) -> bool {
        self.samples.is_none()
    }

    /// Returns the number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.as_ref().map_or(SYNTHETIC, Vec::len)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the shape `[N, C, S, S]` of a batch of `batch` images.
    #[must_use]
    pub(super) fn shape(&self, batch: usize) -> [usize; 4] {
        let preprocess = self.preparer.preprocess();
        let side = preprocess.size as usize;
        [batch, preprocess.channels.len(), side, side]
    }

    /// Returns the classes of each image; `None` for images without labels.
    #[must_use]
    pub(super) fn targets<'t>(&self, labels: &'t LabelTable) -> Vec<Option<&'t [u16]>> {
        let by_id: HashMap<&str, &[u16]> = labels
            .ids
            .iter()
            .map(String::as_str)
            .zip(labels.targets.iter().map(Vec::as_slice))
            .collect();
        let samples = self.samples.iter().flatten();
        samples
            .map(|sample| by_id.get(sample.id.as_str()).copied())
            .collect()
    }

    /// Passes all images to `each` in batches; returns those that cannot be read.
    ///
    /// # Errors
    ///
    /// The error of `each`, or [`ExportError::Unreadable`] if no image can be read.
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
            let done = self.len().min(start + BATCH);
            self.observer.progress(TASK, done, self.len());
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
            return Ok(synthetic(row * count, count));
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

/// Returns numbers from −1 to 1, in an order without a period that matches the rows of an image.
pub(super) fn synthetic(start: usize, count: usize) -> Vec<f32> {
    (start..start + count)
        .map(|i| ((i * 7919 % 65_521) as f32 / 32_760.5) - 1.0)
        .collect()
}

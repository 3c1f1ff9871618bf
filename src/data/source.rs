//! What the loaders of a run read from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CacheError, CacheForm, Dataset, PixelCache};
use crate::imaging::{
    DecodeLimits, Planes, Preprocess, Sample, SampleError, SampleErrorKind, Variation, read_sample,
};

/// A data set and how its images become input; all loaders of a run share one.
///
/// It remembers the size of each image from the first time it is read. Files are read anew in each
/// epoch, and since every image is stretched to the size of the input, one that was replaced in
/// between would otherwise go unnoticed.
#[derive(Debug)]
pub struct Source {
    dataset: Arc<Dataset>,
    preprocess: Arc<Preprocess>,
    /// Width and height of each sample, packed; 0 before it is read.
    sizes: Vec<AtomicU64>,
    /// Where the pixels are taken from instead of the files.
    cache: Option<Cached>,
}

/// A pixel cache, and the place of each sample in it.
#[derive(Debug)]
struct Cached {
    pixels: Arc<PixelCache>,
    places: Vec<usize>,
}

impl Source {
    /// Nothing is read yet. The data set's samples must have the preprocessing's stains.
    #[must_use]
    pub fn new(dataset: Arc<Dataset>, preprocess: Arc<Preprocess>) -> Self {
        let sizes = dataset.samples.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            dataset,
            preprocess,
            sizes,
            cache: None,
        }
    }

    /// Takes the pixels from a cache; no image file is opened any more.
    ///
    /// # Errors
    ///
    /// The cache has not the samples, stains or size that are `wanted`.
    pub fn with_cache(
        mut self,
        pixels: Arc<PixelCache>,
        wanted: &CacheForm,
    ) -> Result<Self, CacheError> {
        let places = pixels.fit(&self.dataset, wanted, self.preprocess.size)?;
        self.cache = Some(Cached { pixels, places });
        Ok(self)
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
        let sample = &self.dataset.samples[index];
        let planes = match &self.cache {
            Some(Cached { pixels, places }) => {
                pixels.planes(places[index]).map_err(|fault| SampleError {
                    id: sample.id.clone(),
                    file: pixels.path().display().to_string(),
                    kind: SampleErrorKind::Cache(fault.fault.to_string()),
                })?
            }
            None => {
                let planes = read_sample(sample, &DecodeLimits::default())?;
                self.check_size(index, &planes)
                    .map_err(|kind| error(sample, kind))?;
                planes
            }
        };
        let variation = vary(planes.channels);
        self.preprocess.prepare(&planes, &variation, out);
        Ok(())
    }

    fn check_size(&self, index: usize, planes: &Planes) -> Result<(), SampleErrorKind> {
        let is = (planes.width, planes.height);
        let packed = u64::from(is.0) << 32 | u64::from(is.1);
        let before =
            self.sizes[index].compare_exchange(0, packed, Ordering::Relaxed, Ordering::Relaxed);
        match before {
            Err(before) if before != packed => {
                let was = ((before >> 32) as u32, before as u32);
                Err(SampleErrorKind::Changed { was, is })
            }
            _ => Ok(()),
        }
    }
}

fn error(sample: &Sample, kind: SampleErrorKind) -> SampleError {
    let file = sample.files.iter().flatten().next();
    SampleError {
        id: sample.id.clone(),
        file: file.map_or_else(String::new, |path| path.display().to_string()),
        kind,
    }
}

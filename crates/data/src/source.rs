//! Source of the samples of a run: image files, a pixel cache, or a feature file.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use super::{CacheError, CacheForm, Dataset, Features, PackedError, PixelCache};
use rgby_imaging::{
    Augmentation, ChannelSelector, DecodeLimits, Planes, Preprocess, Preprocessor, Sample,
    SampleError, SampleErrorKind,
};

/// A data set with its preprocessing. All loaders of a run share one.
#[derive(Debug)]
pub struct SampleSource {
    dataset: Arc<Dataset>,
    preprocessor: Arc<Preprocessor>,
    origin: PixelOrigin,
}

/// Origin of the pixels or features.
#[derive(Debug)]
enum PixelOrigin {
    /// Image files, with the packed size of each image at its first read, 0 before. The files are
    /// read again in each epoch and resized, so a replaced image would otherwise not be detected.
    Files(Vec<AtomicU64>),
    /// A pixel cache, and the record number of each sample.
    Cache(Arc<PixelCache>, Vec<usize>),
    /// Features of a frozen backbone.
    Features(Box<Features>),
}

impl SampleSource {
    /// Reads nothing yet. The data set's samples must have the stains of the preprocessing.
    ///
    /// # Panics
    ///
    /// If the preprocessing was not validated.
    #[must_use]
    pub fn new(dataset: Arc<Dataset>, preprocess: Arc<Preprocess>) -> Self {
        let sizes = dataset.samples.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            dataset,
            preprocessor: Arc::new(Preprocessor::new(preprocess)),
            origin: PixelOrigin::Files(sizes),
        }
    }

    /// Reads the pixels from a cache instead of image files.
    ///
    /// # Errors
    ///
    /// The cache lacks samples, or does not have the form `wanted`.
    pub fn with_cache(
        self,
        pixels: Arc<PixelCache>,
        wanted: &CacheForm,
    ) -> Result<Self, CacheError> {
        let records = pixels.fit(&self.dataset, wanted, self.preprocess().size)?;
        let origin = PixelOrigin::Cache(pixels, records);
        Ok(Self { origin, ..self })
    }

    /// Returns a source of the features of the same samples.
    #[must_use]
    pub fn with_features(&self, features: Features) -> Self {
        Self {
            dataset: self.dataset.clone(),
            preprocessor: self.preprocessor.clone(),
            origin: PixelOrigin::Features(Box::new(features)),
        }
    }

    /// Returns the number of values in one sample's input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        match &self.origin {
            PixelOrigin::Features(features) => features.form().len,
            _ => self.preprocess().input_len(),
        }
    }

    /// Returns bytes that identify the content of sample `index`: the hash of its pixels in a
    /// cache, else its channel selectors with path, length and modification time of each file.
    ///
    /// # Errors
    ///
    /// A file is missing.
    pub fn identity(&self, index: usize) -> io::Result<Vec<u8>> {
        if let PixelOrigin::Cache(pixels, records) = &self.origin {
            return Ok(pixels.hash(records[index]).to_vec());
        }
        let mut identity = Vec::new();
        let sample = &self.dataset.samples[index];
        for pick in sample.picks.iter() {
            let name = match pick {
                ChannelSelector::WholeFile => "",
                ChannelSelector::Channel(name) => name,
            };
            identity.extend_from_slice(name.as_bytes());
            identity.push(0);
        }
        for file in sample.files.iter().flatten() {
            let metadata = file.metadata()?;
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH);
            let modified = modified.map_or(0, |time| time.as_nanos());
            identity.extend_from_slice(file.as_os_str().as_encoded_bytes());
            identity.extend_from_slice(&metadata.len().to_le_bytes());
            identity.extend_from_slice(&modified.to_le_bytes());
        }
        Ok(identity)
    }

    #[must_use]
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    #[must_use]
    pub fn preprocess(&self) -> &Preprocess {
        self.preprocessor.preprocess()
    }

    /// Reads sample `index` into `out`: `[C, S, S]` or features. `augment` returns the augmentation
    /// for the number of stains.
    pub(super) fn load(
        &self,
        index: usize,
        augment: impl FnOnce(usize) -> Augmentation,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        let sample = &self.dataset.samples[index];
        match &self.origin {
            PixelOrigin::Files(sizes) => {
                let augment = |planes: &Planes| {
                    check_size(&sizes[index], planes).map_err(|kind| error(sample, kind))?;
                    Ok(augment(planes.channels))
                };
                let limits = DecodeLimits::default();
                self.preprocessor.load_with(sample, &limits, augment, out)
            }
            PixelOrigin::Cache(pixels, records) => {
                let read = pixels.planes(records[index]);
                let planes = read.map_err(|fault| damaged(sample, &fault))?;
                self.preprocessor
                    .prepare(&planes, &augment(planes.channels), out);
                Ok(())
            }
            PixelOrigin::Features(features) => {
                let symmetry = augment(sample.channels.len()).dihedral;
                let read = features.read(index, symmetry, out);
                read.map_err(|fault| damaged(sample, &fault))
            }
        }
    }
}

fn check_size(size: &AtomicU64, planes: &Planes) -> Result<(), SampleErrorKind> {
    let is = (planes.width, planes.height);
    let packed = u64::from(is.0) << 32 | u64::from(is.1);
    let before = size.compare_exchange(0, packed, Ordering::Relaxed, Ordering::Relaxed);
    match before {
        Err(before) if before != packed => {
            let was = ((before >> 32) as u32, before as u32);
            Err(SampleErrorKind::Changed { was, is })
        }
        _ => Ok(()),
    }
}

fn damaged(sample: &Sample, fault: &PackedError) -> SampleError {
    SampleError {
        id: sample.id.clone(),
        file: fault.path.display().to_string(),
        kind: SampleErrorKind::Cache(fault.fault.to_string()),
    }
}

fn error(sample: &Sample, kind: SampleErrorKind) -> SampleError {
    let file = sample.paths().next();
    SampleError {
        id: sample.id.clone(),
        file: file.map_or_else(String::new, |path| path.display().to_string()),
        kind,
    }
}

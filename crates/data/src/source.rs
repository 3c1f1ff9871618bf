//! What the loaders of a run read from.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use super::{CacheError, CacheForm, Dataset, Features, PackedError, PixelCache};
use rgby_imaging::{
    ChannelSelector, DecodeLimits, Planes, Preparer, Preprocess, Sample, SampleError,
    SampleErrorKind, Variation,
};

/// A data set and how its samples become input; all loaders of a run share one.
#[derive(Debug)]
pub struct SampleSource {
    dataset: Arc<Dataset>,
    preparer: Arc<Preparer>,
    origin: PixelOrigin,
}

/// Where the samples come from.
#[derive(Debug)]
enum PixelOrigin {
    /// Their image files. They are read anew in each epoch, and since every image is stretched to
    /// the size of the input, one that was replaced in between would otherwise go unnoticed: so
    /// the size of each from the first time that it is read, packed; 0 before.
    Files(Vec<AtomicU64>),
    /// A pixel cache, and the place of each sample in it.
    Cache(Arc<PixelCache>, Vec<usize>),
    /// No images but what a network's unchanging part made of them.
    Features(Box<Features>),
}

impl SampleSource {
    /// Nothing is read yet. The data set's samples must have the preprocessing's stains.
    ///
    /// # Panics
    ///
    /// If the preprocessing was not validated.
    #[must_use]
    pub fn new(dataset: Arc<Dataset>, preprocess: Arc<Preprocess>) -> Self {
        let sizes = dataset.samples.iter().map(|_| AtomicU64::new(0)).collect();
        Self {
            dataset,
            preparer: Arc::new(Preparer::new(preprocess)),
            origin: PixelOrigin::Files(sizes),
        }
    }

    /// Takes the pixels from a cache; no image file is opened any more.
    ///
    /// # Errors
    ///
    /// The cache has not the samples, stains or size that are `wanted`.
    pub fn with_cache(
        self,
        pixels: Arc<PixelCache>,
        wanted: &CacheForm,
    ) -> Result<Self, CacheError> {
        let places = pixels.fit(&self.dataset, wanted, self.preprocess().size)?;
        let origin = PixelOrigin::Cache(pixels, places);
        Ok(Self { origin, ..self })
    }

    /// The same samples by their features.
    #[must_use]
    pub fn with_features(&self, features: Features) -> Self {
        Self {
            dataset: self.dataset.clone(),
            preparer: self.preparer.clone(),
            origin: PixelOrigin::Features(Box::new(features)),
        }
    }

    /// Values of one sample's input.
    #[must_use]
    pub fn input_len(&self) -> usize {
        match &self.origin {
            PixelOrigin::Features(features) => features.form().len,
            _ => self.preprocess().input_len(),
        }
    }

    /// What tells sample `index` from any other: a hash of its pixels if there is a cache, else
    /// path, length and time of each of its files, and the channels that they are of.
    ///
    /// # Errors
    ///
    /// A file is not there.
    pub fn identity(&self, index: usize) -> io::Result<Vec<u8>> {
        if let PixelOrigin::Cache(pixels, at) = &self.origin {
            return Ok(pixels.hash(at[index]).to_vec());
        }
        let mut identity = Vec::new();
        let sample = &self.dataset.samples[index];
        for pick in sample.picks.iter() {
            let name = match pick {
                ChannelSelector::Alone => "",
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

    /// The samples.
    #[must_use]
    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// How they become input.
    #[must_use]
    pub fn preprocess(&self) -> &Preprocess {
        self.preparer.preprocess()
    }

    /// Reads sample `index` into `out`, `[C, S, S]` or its features. `vary` says how to show it,
    /// given its number of stains.
    pub(super) fn load(
        &self,
        index: usize,
        vary: impl FnOnce(usize) -> Variation,
        out: &mut [f32],
    ) -> Result<(), SampleError> {
        let sample = &self.dataset.samples[index];
        match &self.origin {
            PixelOrigin::Files(sizes) => {
                let vary = |planes: &Planes| {
                    check_size(&sizes[index], planes).map_err(|kind| error(sample, kind))?;
                    Ok(vary(planes.channels))
                };
                let limits = DecodeLimits::default();
                self.preparer.load_with(sample, &limits, vary, out)
            }
            PixelOrigin::Cache(pixels, at) => {
                let read = pixels.planes(at[index]);
                let planes = read.map_err(|fault| damaged(sample, &fault))?;
                self.preparer.prepare(&planes, &vary(planes.channels), out);
                Ok(())
            }
            PixelOrigin::Features(features) => {
                let view = vary(sample.channels.len()).dihedral;
                let read = features.read(index, view, out);
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

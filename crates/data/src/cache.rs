//! The pixel cache: a data set decoded and resized once, one record a sample.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Dataset;
use super::packed::{Packed, PackedError, write_packed};
use rgby_imaging::{DecodeLimits, Planes, Resize, SampleError, read_sample};

/// First bytes of a pixel cache.
const KIND: [u8; 8] = *b"rgbypix1";
/// Samples that are decoded side by side before they are written.
const ROUND: usize = 64;

/// What the pixels of a cache are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheForm {
    /// Side of the square planes in pixels.
    pub size: u32,
    /// How images got that size; rounded to whole numbers where the filter yields others.
    pub resize: Resize,
    /// The planes of a sample, in their order.
    pub stains: Vec<String>,
}

/// Why a cache cannot be made or used.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The file is not whole, or not a cache.
    #[error(transparent)]
    File(#[from] PackedError),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
    /// No sample could be read.
    #[error("none of the samples can be read; the first: {0}")]
    Empty(SampleError),
    /// It holds something else than is wanted.
    #[error(
        "{}: {reason}; give another name, or remove it and it is made again",
        path.display()
    )]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheHeader {
    form: CacheForm,
    ids: Vec<String>,
}

/// A pixel cache, open for reading by any number of threads.
#[derive(Debug)]
pub struct PixelCache {
    packed: Packed<CacheHeader>,
    places: HashMap<String, usize>,
}

impl PixelCache {
    /// Decodes and resizes the samples of `dataset` into a file; those that cannot be read are
    /// left out and returned. The data set must have been opened with the form's stains.
    ///
    /// `progress` is called with the number of samples that are done.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or no sample can be read; then there is no file.
    pub fn write(
        path: &Path,
        dataset: &Dataset,
        form: &CacheForm,
        progress: &dyn Fn(usize),
    ) -> Result<Vec<SampleError>, CacheError> {
        let mut failed = Vec::new();
        let record_len = form.stains.len() * (form.size as usize).pow(2);
        let written = write_packed(path, KIND, record_len, |push| {
            let mut ids = Vec::with_capacity(dataset.len());
            for (round, samples) in dataset.samples.chunks(ROUND).enumerate() {
                let decoded: Vec<_> = samples
                    .par_iter()
                    .map(|sample| read_sample(sample, &DecodeLimits::default()))
                    .map(|planes| Ok(planes?.resized(form.size, form.resize)))
                    .collect();
                for (sample, planes) in samples.iter().zip(decoded) {
                    match planes {
                        Ok(planes) => {
                            push(&planes.data)?;
                            ids.push(sample.id.clone());
                        }
                        Err(error) => failed.push(error),
                    }
                }
                progress(round * ROUND + samples.len());
            }
            if ids.is_empty() {
                return Err(io::Error::other("no sample"));
            }
            Ok(CacheHeader {
                form: form.clone(),
                ids,
            })
        });
        match (written, failed.len() == dataset.len()) {
            (Err(_), true) if !failed.is_empty() => Err(CacheError::Empty(failed.swap_remove(0))),
            (written, _) => written.map(|()| failed).map_err(CacheError::Write),
        }
    }

    /// Opens a cache.
    ///
    /// # Errors
    ///
    /// The file is missing, no cache, or not whole.
    pub fn open(path: &Path) -> Result<Self, CacheError> {
        let packed = Packed::<CacheHeader>::open(path, KIND)?;
        let CacheHeader { form, ids } = packed.about();
        let expected = form.stains.len() as u64 * u64::from(form.size).pow(2);
        if ids.len() != packed.len() || expected != packed.record_len() as u64 {
            return Err(unfit(path, "its index contradicts itself"));
        }
        let places = ids.iter().cloned().zip(0..).collect();
        Ok(Self { packed, places })
    }

    /// What the pixels are.
    #[must_use]
    pub fn form(&self) -> &CacheForm {
        &self.packed.about().form
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.packed.path()
    }

    /// SHA-256 of everything in it, in hexadecimal digits.
    #[must_use]
    pub fn seal(&self) -> &str {
        self.packed.seal()
    }

    /// Ids of the samples, in the order in which they were written.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.packed.about().ids
    }

    /// SHA-256 of a sample's pixels, by its place.
    #[must_use]
    pub fn hash(&self, place: usize) -> &[u8] {
        self.packed.hash(place)
    }

    /// Where the samples of `dataset` are, in its order, for a run that needs `wanted`.
    ///
    /// # Errors
    ///
    /// [`CacheError::Unfit`] if samples are missing, or planes have another size, other stains or
    /// were made with another filter. Where training crops, so that `wanted` is larger than
    /// `input_size`, any size that is no smaller than that will do.
    pub fn fit(
        &self,
        dataset: &Dataset,
        wanted: &CacheForm,
        input_size: u32,
    ) -> Result<Vec<usize>, CacheError> {
        let form = self.form();
        let refuse = |reason: String| Err(unfit(self.path(), &reason));
        let crops = wanted.size > input_size;
        if form.size != wanted.size && !(crops && form.size >= input_size) {
            return refuse(format!(
                "its images are {0}×{0} pixels, the run needs {1}×{1} (model.input_size over \
                 data.augment.crop)",
                form.size, wanted.size
            ));
        }
        if form.resize != wanted.resize {
            return refuse(format!(
                "its images were resized by {}, the run asks for {} (data.resize, --resize of \
                 `rgby cache`)",
                form.resize.name(),
                wanted.resize.name()
            ));
        }
        if form.stains != wanted.stains {
            return refuse(format!(
                "it holds the stains {}, the run needs {}",
                form.stains.join(", "),
                wanted.stains.join(", ")
            ));
        }
        let place = |id: &String| self.places.get(id).copied();
        let ids = dataset.samples.iter().map(|sample| &sample.id);
        let missing: Vec<&str> = ids
            .clone()
            .filter(|id| place(id).is_none())
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            return refuse(format!(
                "{} of {} samples are not in it, such as `{}`",
                missing.len(),
                dataset.len(),
                missing[0]
            ));
        }
        Ok(ids.filter_map(place).collect())
    }

    /// The planes of a sample, by its place.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the sample's pixels are not those that were written.
    ///
    /// # Panics
    ///
    /// If there is no such place.
    pub fn planes(&self, place: usize) -> Result<Planes, PackedError> {
        let form = self.form();
        Ok(Planes {
            width: form.size,
            height: form.size,
            channels: form.stains.len(),
            data: self.packed.read(place)?,
        })
    }
}

fn unfit(path: &Path, reason: &str) -> CacheError {
    CacheError::Unfit {
        path: path.into(),
        reason: reason.into(),
    }
}

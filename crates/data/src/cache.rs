//! The pixel cache: a data set decoded and resized once, with one record per sample.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Dataset;
use super::packed::{Packed, PackedError, write_packed};
use rgby_imaging::{DecodeLimits, Planes, Resize, SampleError, read_sample};

/// Magic bytes of a pixel cache.
const KIND: [u8; 8] = *b"rgbypix1";
/// Samples that are decoded in parallel before they are written.
const CHUNK: usize = 64;

/// Size, resize filter and stains of cached planes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheForm {
    /// Side of the square planes in pixels.
    pub size: u32,
    /// Filter that resized the images; its result is rounded to integers.
    pub resize: Resize,
    /// Stains of a sample's planes, in order.
    pub stains: Vec<String>,
}

/// Why a cache cannot be written or used.
#[derive(Debug, Error)]
pub enum CacheError {
    /// The file is damaged or not a cache.
    #[error(transparent)]
    File(#[from] PackedError),
    #[error(transparent)]
    Write(#[from] io::Error),
    #[error("no sample can be read: {0}")]
    Empty(SampleError),
    /// The cache does not match the run.
    #[error(
        "{}: {reason}\nhint: use another file name, or remove the file to create it again",
        path.display()
    )]
    Mismatch { path: PathBuf, reason: String },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CacheHeader {
    form: CacheForm,
    ids: Vec<String>,
}

/// An open pixel cache, readable from any number of threads.
#[derive(Debug)]
pub struct PixelCache {
    packed: Packed<CacheHeader>,
    /// Record number by sample id.
    records: HashMap<String, usize>,
}

impl PixelCache {
    /// Decodes and resizes the samples of `dataset` into a file. Unreadable samples are left out
    /// and their errors are returned. The data set must have been opened with the stains of `form`.
    ///
    /// `progress` is called with the number of processed samples.
    ///
    /// # Errors
    ///
    /// The file cannot be written, or no sample can be read. No file is left then.
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
            for (chunk, samples) in dataset.samples.chunks(CHUNK).enumerate() {
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
                progress(chunk * CHUNK + samples.len());
            }
            if ids.is_empty() {
                return Err(io::Error::other("no sample can be read"));
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

    /// Opens a cache and checks its index.
    ///
    /// # Errors
    ///
    /// The file is missing, damaged or not a cache.
    pub fn open(path: &Path) -> Result<Self, CacheError> {
        let packed = Packed::<CacheHeader>::open(path, KIND)?;
        let CacheHeader { form, ids } = packed.about();
        let expected = form.stains.len() as u64 * u64::from(form.size).pow(2);
        if ids.len() != packed.len() || expected != packed.record_len() as u64 {
            return Err(mismatch(path, "the index is inconsistent"));
        }
        let records = ids.iter().cloned().zip(0..).collect();
        Ok(Self { packed, records })
    }

    #[must_use]
    pub fn form(&self) -> &CacheForm {
        &self.packed.about().form
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        self.packed.path()
    }

    /// Returns the SHA-256 over all content, in hexadecimal digits.
    #[must_use]
    pub fn checksum(&self) -> &str {
        self.packed.checksum()
    }

    /// Returns the ids of the samples in the order of their records.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.packed.about().ids
    }

    /// Returns the SHA-256 of the pixels of record `record`.
    #[must_use]
    pub fn hash(&self, record: usize) -> &[u8] {
        self.packed.hash(record)
    }

    /// Returns the record numbers of the samples of `dataset`, in its order, for a run that needs
    /// planes of the form `wanted`.
    ///
    /// # Errors
    ///
    /// [`CacheError::Mismatch`] if samples are missing, or if size, stains or filter differ. If
    /// training crops, `wanted.size` is larger than `input_size`, and every cached size from
    /// `input_size` up is accepted.
    pub fn fit(
        &self,
        dataset: &Dataset,
        wanted: &CacheForm,
        input_size: u32,
    ) -> Result<Vec<usize>, CacheError> {
        let form = self.form();
        let mismatch = |reason: String| Err(mismatch(self.path(), &reason));
        let crops = wanted.size > input_size;
        if form.size != wanted.size && !(crops && form.size >= input_size) {
            return mismatch(format!(
                "its images are {0}×{0} pixels, the run needs {1}×{1} (model.input_size over \
                 data.augment.crop)",
                form.size, wanted.size
            ));
        }
        if form.resize != wanted.resize {
            return mismatch(format!(
                "its images were resized by {}, the run needs {} (data.resize, --resize of \
                 `rgby cache`)",
                form.resize.name(),
                wanted.resize.name()
            ));
        }
        if form.stains != wanted.stains {
            return mismatch(format!(
                "it contains the stains {}, the run needs {}",
                form.stains.join(", "),
                wanted.stains.join(", ")
            ));
        }
        let record = |id: &String| self.records.get(id).copied();
        let ids = dataset.samples.iter().map(|sample| &sample.id);
        let missing: Vec<&str> = ids
            .clone()
            .filter(|id| record(id).is_none())
            .map(String::as_str)
            .collect();
        if !missing.is_empty() {
            return mismatch(format!(
                "{} of {} samples are not in it, such as `{}`",
                missing.len(),
                dataset.len(),
                missing[0]
            ));
        }
        Ok(ids.filter_map(record).collect())
    }

    /// Reads the planes of record `record`.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the hash of the record differs.
    ///
    /// # Panics
    ///
    /// If there is no such record.
    pub fn planes(&self, record: usize) -> Result<Planes, PackedError> {
        let form = self.form();
        Ok(Planes {
            width: form.size,
            height: form.size,
            channels: form.stains.len(),
            data: self.packed.read(record)?,
        })
    }
}

fn mismatch(path: &Path, reason: &str) -> CacheError {
    CacheError::Mismatch {
        path: path.into(),
        reason: reason.into(),
    }
}

//! Creates the pixel cache of a data set, with a list of the samples that cannot be read.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::Config;
use crate::data::{CacheError, CacheForm, Dataset, PixelCache};
use crate::observer::Observer;
use crate::score::Failure;
use crate::score::output::{self, OutputError};

/// A cache that was written.
#[derive(Debug, Clone)]
pub struct CacheReport {
    pub path: PathBuf,
    /// Number of cached samples.
    pub cached: usize,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Samples that could not be read; they are listed in [`errors_file`](Self::errors_file).
    pub failures: Vec<Failure>,
    /// `FILE.errors.csv`, which exists only if a sample failed.
    pub errors_file: PathBuf,
}

impl fmt::Display for CacheReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} samples in {} ({:.1} MB)",
            self.cached,
            self.path.display(),
            self.bytes as f64 / 1e6
        )
    }
}

/// Why a cache was not written.
#[derive(Debug, thiserror::Error)]
pub enum BuildCacheError {
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The list of failed samples cannot be written.
    #[error(transparent)]
    Errors(#[from] OutputError),
    #[error("cannot read the size of {}: {cause}", path.display())]
    Size { path: PathBuf, cause: io::Error },
}

/// Decodes and resizes all samples of `dataset` into the file `path`.
///
/// Samples that cannot be read are left out and listed in `FILE.errors.csv`. Reports progress in
/// samples as the task `caching`.
///
/// # Errors
///
/// [`BuildCacheError`] if no sample can be read or a file cannot be written.
pub fn build_cache(
    path: &Path,
    dataset: &Dataset,
    form: &CacheForm,
    observer: &dyn Observer,
) -> Result<CacheReport, BuildCacheError> {
    let total = dataset.len();
    observer.progress(TASK, 0, total);
    let failed = PixelCache::write(path, dataset, form, &|done| {
        observer.progress(TASK, done, total);
    })?;
    let failures: Vec<Failure> = failed
        .into_iter()
        .map(|error| Failure {
            id: error.id,
            file: error.file,
            error: error.kind.to_string(),
        })
        .collect();
    let errors_file = output::errors_path(path);
    output::write_errors(&errors_file, &failures)?;
    let metadata = path.metadata().map_err(|cause| BuildCacheError::Size {
        path: path.to_owned(),
        cause,
    })?;
    let report = CacheReport {
        path: path.to_owned(),
        cached: total - failures.len(),
        bytes: metadata.len(),
        failures,
        errors_file,
    };
    observer.note(&report.to_string());
    if !report.failures.is_empty() {
        observer.warn(&format!(
            "{} of {total} samples could not be read; they are listed in {}",
            report.failures.len(),
            report.errors_file.display()
        ));
    }
    Ok(report)
}

/// Opens the pixel cache of a run; creates it first if the file does not exist.
///
/// # Errors
///
/// As [`build_cache`]; or the file is damaged.
pub fn open_or_build_cache(
    path: &Path,
    dataset: &Dataset,
    config: &Config,
    observer: &dyn Observer,
) -> Result<PixelCache, BuildCacheError> {
    if !path.exists() {
        build_cache(path, dataset, &config.cache_form(), observer)?;
    }
    Ok(PixelCache::open(path)?)
}

/// Name of the task in progress reports.
const TASK: &str = "caching";

//! Images read directly from an object store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rgby_imaging::{FileSource, FindError, Sample, SampleErrorKind, samples_among};
use rgby_store::{ReadAhead, ReadFailure, Store, StoreError, StoreOptions, Url};

/// The image files of a folder in a store.
#[derive(Debug)]
pub struct StoreImages {
    files: ReadAhead,
    /// Prefix of the files' paths, which are URLs.
    folder: String,
}

/// Why no samples were found in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreImagesError {
    #[error("--images: {0}")]
    Store(StoreError),
    #[error("--images: {0}")]
    Find(FindError),
}

impl StoreImages {
    /// Lists the samples in the folder `url`; the paths of their files are URLs.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed, or holds no samples.
    pub fn find(
        url: &Url,
        options: &StoreOptions,
        stains: &[String],
    ) -> Result<Vec<Sample>, StoreImagesError> {
        let store = Store::open(url, options).map_err(StoreImagesError::Store)?;
        // The first error ends the listing, and is returned unchanged.
        let mut error: Option<StoreError> = None;
        let mut names = store.list().map_while(|name| match name {
            Ok(name) => Some(Ok(name.into())),
            Err(first) => {
                error = Some(first);
                None
            }
        });
        let folder = PathBuf::from(url.folder());
        let samples = samples_among(&folder, &mut names, stains);
        match error {
            Some(error) => Err(StoreImagesError::Store(error)),
            None => samples.map_err(StoreImagesError::Find),
        }
    }

    /// Opens the files of the folder `url`, which are prefetched until `stop` is set.
    ///
    /// # Errors
    ///
    /// The credentials or settings in the environment are invalid.
    pub fn open(
        url: &Url,
        options: &StoreOptions,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            files: ReadAhead::new(&Store::open(url, options)?, stop),
            folder: url.folder(),
        })
    }

    /// Returns the object name of a file, relative to the folder.
    fn name<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.to_str()?.strip_prefix(&self.folder)
    }
}

impl FileSource for StoreImages {
    fn read(&self, path: &Path, limit: u64, bytes: &mut Vec<u8>) -> Result<(), SampleErrorKind> {
        let outside = || io::Error::other(format!("is not in {}", self.folder));
        let name = self.name(path).ok_or_else(outside)?;
        self.files
            .read(name, limit, bytes)
            .map_err(|failure| match failure {
                ReadFailure::File(error) => SampleErrorKind::Io(io::Error::other(error.kind)),
                ReadFailure::Store(error) => SampleErrorKind::Unavailable(io::Error::other(error)),
                ReadFailure::Stopped => {
                    SampleErrorKind::Unavailable(io::ErrorKind::Interrupted.into())
                }
            })
    }

    fn want(&self, paths: &mut dyn Iterator<Item = &Path>, limit: u64) {
        self.files
            .want(paths.filter_map(|path| self.name(path)), limit);
    }

    fn expect(&self, paths: &mut dyn Iterator<Item = &Path>, limit: u64) {
        self.files
            .expect(paths.filter_map(|path| self.name(path)), limit);
    }

    fn forget(&self, paths: &mut dyn Iterator<Item = &Path>) {
        self.files.forget(paths.filter_map(|path| self.name(path)));
    }
}

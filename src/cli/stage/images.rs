//! Images right out of a store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::imaging::{FileSource, Sample, SampleErrorKind, samples_among};
use crate::store::{ReadAhead, ReadFailure, Store, StoreError, StoreOptions, Url};

/// The image files of a folder in a store.
#[derive(Debug)]
pub struct StoreFiles {
    ahead: ReadAhead,
    /// How their paths begin.
    folder: String,
}

impl StoreFiles {
    /// The samples in the folder `url`, whose files' paths are URLs.
    ///
    /// # Errors
    ///
    /// The folder cannot be listed, or holds no samples.
    pub fn find(
        url: &Url,
        options: &StoreOptions,
        channels: &[String],
    ) -> anyhow::Result<Vec<Sample>> {
        let store = Store::open(url, options)?;
        // The first error ends the listing, and is told as the store told it.
        let mut error: Option<StoreError> = None;
        let mut names = store.list().map_while(|name| match name {
            Ok(name) => Some(Ok(name.into())),
            Err(first) => {
                error = Some(first);
                None
            }
        });
        let folder = PathBuf::from(url.folder());
        let samples = samples_among(&folder, &mut names, channels);
        match error {
            Some(error) => Err(error.into()),
            None => Ok(samples?),
        }
    }

    /// The files of the folder `url`, read ahead until `stop` is set.
    ///
    /// # Errors
    ///
    /// The environment's credentials or settings cannot be used.
    pub fn open(
        url: &Url,
        options: &StoreOptions,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            ahead: ReadAhead::new(&Store::open(url, options)?, stop),
            folder: url.folder(),
        })
    }

    /// The name of a file in the folder.
    fn name<'a>(&self, path: &'a Path) -> Option<&'a str> {
        path.to_str()?.strip_prefix(&self.folder)
    }
}

impl FileSource for StoreFiles {
    fn read(&self, path: &Path, limit: u64, bytes: &mut Vec<u8>) -> Result<(), SampleErrorKind> {
        let elsewhere = || io::Error::other(format!("is not in {}", self.folder));
        let name = self.name(path).ok_or_else(elsewhere)?;
        self.ahead
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
        self.ahead
            .want(paths.filter_map(|path| self.name(path)), limit);
    }

    fn expect(&self, paths: &mut dyn Iterator<Item = &Path>, limit: u64) {
        self.ahead
            .expect(paths.filter_map(|path| self.name(path)), limit);
    }

    fn forget(&self, paths: &mut dyn Iterator<Item = &Path>) {
        self.ahead.forget(paths.filter_map(|path| self.name(path)));
    }
}

//! Sources of image files: the local file system or an object store.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::SampleErrorKind;

/// Reads files by their paths, on any number of threads.
pub trait FileSource: Sync {
    /// Replaces the content of `bytes` by that of a file. Reads at most one byte more than `limit`,
    /// so that the decoder can reject a larger file.
    ///
    /// # Errors
    ///
    /// The file cannot be read; [`SampleErrorKind::Unavailable`] if the whole source has failed.
    fn read(&self, path: &Path, limit: u64, bytes: &mut Vec<u8>) -> Result<(), SampleErrorKind>;

    /// Announces files that the calling thread reads now, at most `limit` bytes of each.
    fn want(&self, paths: &mut dyn Iterator<Item = &Path>, limit: u64) {
        let _ = (paths, limit);
    }

    /// Announces files to prefetch, in this order, at most `limit` bytes of each.
    fn expect(&self, paths: &mut dyn Iterator<Item = &Path>, limit: u64) {
        let _ = (paths, limit);
    }

    /// Cancels the prefetch of files that will not be read.
    fn forget(&self, paths: &mut dyn Iterator<Item = &Path>) {
        let _ = paths;
    }
}

/// The local file system.
#[derive(Debug, Clone, Copy)]
pub struct LocalFiles;

impl FileSource for LocalFiles {
    fn read(&self, path: &Path, limit: u64, bytes: &mut Vec<u8>) -> Result<(), SampleErrorKind> {
        Ok(read_limited(path, limit, bytes)?)
    }
}

fn read_limited(path: &Path, limit: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
    bytes.clear();
    let file = File::open(path)?;
    let expected = file.metadata()?.len().min(limit);
    bytes.reserve(expected as usize + 1);
    file.take(limit.saturating_add(1)).read_to_end(bytes)?;
    Ok(())
}

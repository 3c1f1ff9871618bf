//! Where the bytes of samples' files come from.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::SampleErrorKind;

/// Reads files by their paths, on any number of threads.
pub trait FileSource: Sync {
    /// Reads a file into `bytes`, whose contents are lost and whose memory is used again: at most
    /// one byte past `limit`, enough for the decoder to refuse the file.
    ///
    /// # Errors
    ///
    /// The file cannot be read; [`SampleErrorKind::Unavailable`] if no other could be either.
    fn read(&self, path: &Path, limit: u64, bytes: &mut Vec<u8>) -> Result<(), SampleErrorKind>;

    /// Says which files the calling thread will read now; at most `limit` bytes of each.
    fn want(&self, paths: &mut dyn Iterator<Item = &Path>, limit: u64) {
        let _ = (paths, limit);
    }

    /// Says which files any thread will read next, in this order; at most `limit` bytes of each.
    fn expect(&self, paths: &mut dyn Iterator<Item = &Path>, limit: u64) {
        let _ = (paths, limit);
    }

    /// Says that files which were expected will not be read after all.
    fn forget(&self, paths: &mut dyn Iterator<Item = &Path>) {
        let _ = paths;
    }
}

/// The files of this machine.
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

//! What keeps copies of an unfinished run's parts.

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// Copies of the parts elsewhere, by which another machine can go on.
pub trait RemoteParts: Debug {
    /// Copies the part `file`, which is complete.
    ///
    /// # Errors
    ///
    /// It cannot be copied.
    fn part(&mut self, file: &Path, sha256: &str) -> io::Result<()>;

    /// Copies the manifest, after the parts that it speaks of.
    ///
    /// # Errors
    ///
    /// It cannot be copied, or another process has copied one since this one began.
    fn manifest(&mut self, text: &[u8]) -> io::Result<()>;

    /// Removes the copies.
    ///
    /// # Errors
    ///
    /// They cannot be removed.
    fn remove(&mut self) -> io::Result<()>;
}

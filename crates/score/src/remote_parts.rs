//! Copies of the parts of an unfinished run.

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// Stores copies of the parts, from which another machine can resume the run.
pub trait RemoteParts: Debug {
    /// Copies the part `file`, which is complete.
    ///
    /// # Errors
    ///
    /// The part cannot be copied.
    fn part(&mut self, file: &Path, sha256: &str) -> io::Result<()>;

    /// Copies the manifest, after the parts that it lists.
    ///
    /// # Errors
    ///
    /// The manifest cannot be copied, or another process has replaced the copy.
    fn manifest(&mut self, text: &[u8]) -> io::Result<()>;

    /// Removes the copies.
    ///
    /// # Errors
    ///
    /// The copies cannot be removed.
    fn remove(&mut self) -> io::Result<()>;
}

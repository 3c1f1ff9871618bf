//! API keys: read from a file, compared in constant time, and shown to nobody.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Shorter keys could be guessed.
const MIN_KEY: usize = 16;

/// The keys that a request may have. Only their hashes are held.
pub struct ApiKeys {
    path: PathBuf,
    hashes: ArcSwap<Vec<[u8; 32]>>,
}

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("--api-key-file {}: cannot be read: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no key in it.
    #[error(
        "--api-key-file {}: holds no key; write one a line, such as `openssl rand -hex 32` makes",
        .0.display()
    )]
    Empty(PathBuf),
    /// A line is no key that is safe.
    #[error(
        "--api-key-file {}: line {line} is no key: it must be {MIN_KEY} or more visible ASCII \
         characters without spaces",
        path.display()
    )]
    Key {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
}

impl ApiKeys {
    /// Reads a file of one key a line; empty lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    ///
    /// As [`KeyError`] says.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let hashes = hashes(path)?;
        Ok(Self {
            path: path.to_owned(),
            hashes: ArcSwap::from_pointee(hashes),
        })
    }

    /// Reads the file again.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); then the keys stay what they were.
    pub fn reload(&self) -> Result<(), KeyError> {
        self.hashes.store(hashes(&self.path)?.into());
        Ok(())
    }

    /// Whether that is one of the keys. How long it takes does not depend on which, or how far it
    /// is right.
    #[must_use]
    pub fn allow(&self, key: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let hashes = self.hashes.load();
        let same = hashes.iter().map(|known| known.ct_eq(&hash));
        same.fold(subtle::Choice::from(0), |any, one| any | one)
            .into()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn hashes(path: &Path) -> Result<Vec<[u8; 32]>, KeyError> {
    let text = fs::read_to_string(path).map_err(|source| KeyError::Io {
        path: path.to_owned(),
        source,
    })?;
    let mut hashes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let key = line.trim();
        if key.is_empty() || key.starts_with('#') {
            continue;
        }
        if key.len() < MIN_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::Key {
                path: path.to_owned(),
                line: number + 1,
            });
        }
        hashes.push(Sha256::digest(key).into());
    }
    if hashes.is_empty() {
        return Err(KeyError::Empty(path.to_owned()));
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_compared_and_hidden() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let [one, two] = ["0123456789abcdef", "another-key-of-the-lab"];
        fs::write(file.path(), format!("# the lab's\n{one}\n\n  {two} \r\n")).unwrap();
        let keys = ApiKeys::read(file.path()).unwrap();
        assert!(keys.allow(one.as_bytes()) && keys.allow(two.as_bytes()));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "# the lab's"] {
            assert!(!keys.allow(wrong.as_bytes()), "{wrong}");
        }
        assert!(!format!("{keys:?}").contains("0123"));
        fs::write(file.path(), "").unwrap();
        assert!(matches!(keys.reload(), Err(KeyError::Empty(_))));
        assert!(keys.allow(one.as_bytes()), "a bad file changes nothing");
        fs::write(file.path(), two).unwrap();
        keys.reload().unwrap();
        assert!(!keys.allow(one.as_bytes()) && keys.allow(two.as_bytes()));
    }

    #[test]
    fn a_bad_file_is_refused_without_showing_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bad in ["short", "a key with spaces in it", "schlüssel-schlüssel"] {
            fs::write(file.path(), format!("0123456789abcdef\n{bad}\n")).unwrap();
            let error = ApiKeys::read(file.path()).unwrap_err().to_string();
            assert!(error.contains("line 2") && !error.contains(bad), "{error}");
        }
        let error = ApiKeys::read(Path::new("/nowhere")).unwrap_err();
        assert!(matches!(error, KeyError::Io { .. }));
    }
}

//! API keys: read from a file, compared in constant time, never printed.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Minimum length of a key; shorter keys could be guessed.
const MIN_KEY: usize = 16;

/// The accepted API keys. Only their hashes are kept in memory.
pub struct ApiKeys {
    path: PathBuf,
    hashes: ArcSwap<Vec<[u8; 32]>>,
}

/// A file of API keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ApiKeyError {
    #[error("--api-key-file {}: cannot read the file: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error(
        "--api-key-file {}: the file has no keys\nhint: write one key per line, for example the \
         output of `openssl rand -hex 32`",
        .0.display()
    )]
    Empty(PathBuf),
    #[error(
        "--api-key-file {}: line {line} is not a valid key: a key has at least {MIN_KEY} visible \
         ASCII characters and no spaces",
        path.display()
    )]
    Key {
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
    },
}

impl ApiKeys {
    /// Reads a file with one key per line. Empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    ///
    /// Returns [`ApiKeyError`] if the file cannot be read or a line is not a valid key.
    pub fn read(path: &Path) -> Result<Self, ApiKeyError> {
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
    /// As [`read`](Self::read); the previous keys then stay in use.
    pub fn reload(&self) -> Result<(), ApiKeyError> {
        self.hashes.store(hashes(&self.path)?.into());
        Ok(())
    }

    /// Returns whether `key` is one of the keys. The duration does not depend on the keys.
    #[must_use]
    pub fn allow(&self, key: &[u8]) -> bool {
        let hash: [u8; 32] = Sha256::digest(key).into();
        let hashes = self.hashes.load();
        let matches = hashes.iter().map(|known| known.ct_eq(&hash));
        matches
            .fold(subtle::Choice::from(0), |any, one| any | one)
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

fn hashes(path: &Path) -> Result<Vec<[u8; 32]>, ApiKeyError> {
    let text = fs::read_to_string(path).map_err(|cause| ApiKeyError::Io {
        path: path.to_owned(),
        cause,
    })?;
    let mut hashes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let key = line.trim();
        if key.is_empty() || key.starts_with('#') {
            continue;
        }
        if key.len() < MIN_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ApiKeyError::Key {
                path: path.to_owned(),
                line: number + 1,
            });
        }
        hashes.push(Sha256::digest(key).into());
    }
    if hashes.is_empty() {
        return Err(ApiKeyError::Empty(path.to_owned()));
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_checked_reloaded_and_not_printed() {
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
        assert!(matches!(keys.reload(), Err(ApiKeyError::Empty(_))));
        assert!(keys.allow(one.as_bytes()), "a bad file keeps the old keys");
        fs::write(file.path(), two).unwrap();
        keys.reload().unwrap();
        assert!(!keys.allow(one.as_bytes()) && keys.allow(two.as_bytes()));
    }

    #[test]
    fn errors_of_a_bad_file_do_not_show_its_contents() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for bad in ["short", "a key with spaces in it", "schlüssel-schlüssel"] {
            fs::write(file.path(), format!("0123456789abcdef\n{bad}\n")).unwrap();
            let error = ApiKeys::read(file.path()).unwrap_err().to_string();
            assert!(error.contains("line 2") && !error.contains(bad), "{error}");
        }
        let error = ApiKeys::read(Path::new("/nowhere")).unwrap_err();
        assert!(matches!(error, ApiKeyError::Io { .. }));
    }
}

//! Locations of files and folders: local paths and URLs.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::location_error::{LocationError, LocationErrorKind};
use super::url::{Scheme, Url, percent_decode};

/// A file or folder named on the command line.
///
/// A text without `scheme://` is a local path; so is a `file://` URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Local(PathBuf),
    /// An object or folder in an object store or on a web server.
    Remote(Url),
}

impl Location {
    /// Parses a command-line argument.
    ///
    /// # Errors
    ///
    /// The scheme is unknown, the URL has no bucket or has a password where none is supported, or
    /// rgby was built without the feature `remote`.
    pub fn parse(text: &OsStr) -> Result<Self, LocationError> {
        // A path that is not UTF-8 is not a URL.
        let url = text.to_str().and_then(|text| {
            let (scheme, rest) = text.split_once("://")?;
            is_scheme(scheme).then_some((scheme, rest))
        });
        let Some((scheme, rest)) = url else {
            return Ok(Self::Local(text.into()));
        };
        let fail = |kind| LocationError {
            shown: shown(scheme, rest),
            kind,
        };
        if scheme.eq_ignore_ascii_case("file") {
            return local_file(rest).map(Self::Local).map_err(fail);
        }
        let known = Scheme::ALL
            .iter()
            .find(|(name, _)| scheme.eq_ignore_ascii_case(name));
        let Some((_, known)) = known else {
            let scheme = scheme.into();
            return Err(fail(LocationErrorKind::Scheme { scheme }));
        };
        let url = Url::parse(*known, rest).map_err(fail)?;
        if cfg!(feature = "remote") {
            Ok(Self::Remote(url))
        } else {
            Err(fail(LocationErrorKind::NotBuilt))
        }
    }

    /// Returns the path, if it is local.
    #[must_use]
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// Returns the path or URL to show, without secrets.
    #[must_use]
    pub fn named(&self) -> PathBuf {
        match self {
            Self::Local(path) => path.clone(),
            Self::Remote(url) => url.to_string().into(),
        }
    }
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self::Local(path)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Remote(url) => url.fmt(f),
        }
    }
}

impl Serialize for Location {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether `text` is a URL scheme.
fn is_scheme(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(letter)
}

/// Returns an invalid URL without secrets.
fn shown(scheme: &str, rest: &str) -> String {
    let rest = rest.split('?').next().unwrap_or_default();
    // A password ends before the last `@`.
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}://***@{rest}"),
        None => format!("{scheme}://{rest}"),
    }
}

fn local_file(rest: &str) -> Result<PathBuf, LocationErrorKind> {
    let path = rest.strip_prefix("localhost").unwrap_or(rest);
    if !path.starts_with('/') {
        return Err(LocationErrorKind::OtherMachine);
    }
    let bytes = percent_decode(path)?;
    if bytes.contains(&0) {
        return Err(LocationErrorKind::Control);
    }
    #[cfg(unix)]
    let path: OsString = std::os::unix::ffi::OsStringExt::from_vec(bytes);
    #[cfg(not(unix))]
    let path: OsString = String::from_utf8(bytes)
        .map_err(|_| LocationErrorKind::Encoding)?
        .into();
    Ok(path.into())
}

#[cfg(test)]
mod tests;

//! Where a file or a folder is: a path of this machine, or a URL.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use super::url::{Scheme, Url, decoded_bytes};

/// A file or a folder that a command line names.
///
/// What has no `scheme://` is a path of this machine, whatever it is called; `file://` is one too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A path of this machine.
    Local(PathBuf),
    /// Something in an object store or on a web server.
    Remote(Url),
}

/// Why a text is no location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown}: {kind}")]
pub struct LocationError {
    /// The text, without what may be secret in it.
    pub shown: String,
    /// What is wrong with it.
    pub kind: LocationErrorKind,
}

/// What is wrong with a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationErrorKind {
    /// No such kind of store is known.
    #[error(
        "URLs begin with s3://, gs://, az://, http://, https:// or file://; \
         a path of this machine that looks like a URL is written ./{scheme}://…"
    )]
    Scheme {
        /// What stands before `://`.
        scheme: String,
    },
    /// There is no bucket, container or server.
    #[error("names no {what}; write {scheme}://{what}/…")]
    NoHost {
        /// What stands before `://`.
        scheme: &'static str,
        /// What is missing.
        what: &'static str,
    },
    /// A name and password where there cannot be any.
    #[error(
        "holds a user or password before `@`, which {scheme}:// URLs have no place for; \
         give credentials in the environment"
    )]
    User {
        /// What stands before `://`.
        scheme: &'static str,
    },
    /// The file is another machine's.
    #[error("file:// URLs name files of this machine: write file:///path")]
    OtherMachine,
    /// A `%` that is not followed by two hexadecimal digits, or bytes that are no text.
    #[error("is not percent-encoded as URLs are (write %25 for a percent sign)")]
    Encoding,
    /// A name that no store can keep.
    #[error("has the part `{part}` in it; names between slashes cannot be empty, `.` or `..`")]
    Part {
        /// The part.
        part: String,
    },
    /// There are control characters in it.
    #[error("has control characters in it")]
    Control,
    /// The program can do without stores.
    #[error("this rgby was built without object stores; build it with the Cargo feature `remote`")]
    NotBuilt,
}

impl Location {
    /// Reads a command line's argument.
    ///
    /// # Errors
    ///
    /// A URL of no known kind or without a bucket, one that holds a password in the wrong place, or
    /// any URL of a store where rgby was built without the feature `remote`.
    pub fn parse(text: &OsStr) -> Result<Self, LocationError> {
        // What is no text has bytes that no URL has.
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

    /// The path, if it is one of this machine.
    #[must_use]
    pub fn local(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote(_) => None,
        }
    }

    /// How it is named in messages: as a path, whether it is one or not.
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

/// What may stand before `://`.
fn is_scheme(text: &str) -> bool {
    let letter = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(letter)
}

/// A URL that is wrong in some way, without what may be secret in it.
fn shown(scheme: &str, rest: &str) -> String {
    let rest = rest.split('?').next().unwrap_or_default();
    // Wherever the password ends, it is before the last `@`.
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
    let bytes = decoded_bytes(path)?;
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

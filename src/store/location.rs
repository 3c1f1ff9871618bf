//! Where a file or a folder is: a path of this machine, or a URL.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

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

/// How a store is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Amazon's S3, or what speaks its language.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure's blobs.
    Az,
    /// A web server, in plain text.
    Http,
    /// A web server.
    Https,
}

impl Scheme {
    const ALL: [(&'static str, Self); 5] = [
        ("s3", Self::S3),
        ("gs", Self::Gs),
        ("az", Self::Az),
        ("http", Self::Http),
        ("https", Self::Https),
    ];

    /// As it stands before `://`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, scheme)| *scheme == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether it is a web server, of which nothing can be asked but files.
    #[must_use]
    pub fn is_web(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }
}

/// An object, or a folder of objects, in a store.
///
/// Shown and debugged without what is secret in it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url {
    scheme: Scheme,
    /// Bucket or container; of a web server its name and port.
    host: String,
    /// As the store knows it: without percent-encoding, and no slash before or after it.
    key: String,
    /// `user:password` of a web server.
    user: Option<String>,
    /// What follows a `?`: the token of a signed URL.
    query: Option<String>,
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

impl Url {
    fn parse(scheme: Scheme, rest: &str) -> Result<Self, LocationErrorKind> {
        // In the key of an S3 or Google object a question mark is one like any other character.
        let has_query = scheme.is_web() || scheme == Scheme::Az;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) if has_query => (rest, Some(query.to_owned())),
            _ => (rest, None),
        };
        let rest = match rest.split_once('#') {
            Some((rest, _)) if scheme.is_web() => rest,
            _ => rest,
        };
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match host.rsplit_once('@') {
            Some((user, host)) => (Some(user.to_owned()), host),
            None => (None, host),
        };
        if user.is_some() && !scheme.is_web() {
            let scheme = scheme.name();
            return Err(LocationErrorKind::User { scheme });
        }
        if host.is_empty() {
            let what = match scheme {
                Scheme::S3 | Scheme::Gs => "bucket",
                Scheme::Az => "container",
                Scheme::Http | Scheme::Https => "server",
            };
            let scheme = scheme.name();
            return Err(LocationErrorKind::NoHost { scheme, what });
        }
        let key = if scheme.is_web() {
            decoded(key)?
        } else {
            key.to_owned()
        };
        let key = key.strip_suffix('/').unwrap_or(&key);
        check_key(key)?;
        Ok(Self {
            scheme,
            host: host.to_owned(),
            key: key.to_owned(),
            user,
            query,
        })
    }

    /// How the store is spoken to.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Bucket or container; of a web server its name and port.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the store calls the object or folder; empty for all of the bucket.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// `user:password` of a web server: secret.
    #[cfg(feature = "remote")]
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The token of a signed URL: secret.
    #[cfg(feature = "remote")]
    pub(super) fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// The object `name` in this folder.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        let key = if self.key.is_empty() || name.is_empty() {
            format!("{}{name}", self.key)
        } else {
            format!("{}/{name}", self.key)
        };
        Self {
            key,
            ..self.clone()
        }
    }

    /// The last part of the key.
    #[must_use]
    pub fn file_name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that it is in.
    #[must_use]
    pub fn parent(&self) -> Self {
        let folder = self.key.rsplit_once('/').map_or("", |(folder, _)| folder);
        Self {
            key: folder.to_owned(),
            ..self.clone()
        }
    }

    /// As it is shown, with a slash at its end: how all that is in it begins.
    #[must_use]
    pub fn folder(&self) -> String {
        let shown = self.to_string();
        if shown.ends_with('/') {
            shown
        } else {
            shown + "/"
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme.name(), self.host, self.key)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
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

fn decoded(text: &str) -> Result<String, LocationErrorKind> {
    String::from_utf8(decoded_bytes(text)?).map_err(|_| LocationErrorKind::Encoding)
}

fn decoded_bytes(text: &str) -> Result<Vec<u8>, LocationErrorKind> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(LocationErrorKind::Encoding);
        };
        out.push((high * 16 + low) as u8);
    }
    Ok(out)
}

fn check_key(key: &str) -> Result<(), LocationErrorKind> {
    if key.chars().any(|c| c.is_ascii_control()) {
        return Err(LocationErrorKind::Control);
    }
    let mut parts = key.split('/').filter(|_| !key.is_empty());
    match parts.find(|part| ["", ".", ".."].contains(part)) {
        Some(part) => Err(LocationErrorKind::Part { part: part.into() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

//! Errors of stores. Messages contain no secrets.

use super::Url;

/// Why an object cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {kind}")]
pub struct StoreError {
    /// The object or folder, without credentials.
    pub url: String,
    pub kind: StoreErrorKind,
}

impl StoreError {
    pub(super) fn new(url: &Url, kind: StoreErrorKind) -> Self {
        Self {
            url: url.to_string(),
            kind,
        }
    }
}

/// What is wrong with an object or its store. `reason` is the response of the store, unless stated
/// otherwise. Messages are single lines, because they also appear in lists of failed samples.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// There is no such object, or no such bucket.
    #[error("there is nothing there ({reason})")]
    Missing { reason: String },
    #[error("access is denied ({reason}); {hint}")]
    Denied {
        reason: String,
        /// Settings that give access.
        hint: &'static str,
    },
    /// The store does not respond, or responds with a server error.
    #[error("the store cannot be reached: {reason}")]
    Unreachable {
        /// The failure of the last retry.
        reason: String,
    },
    /// Any other response with an error.
    #[error("the store responded: {reason}")]
    Response { reason: String },
    /// The body ended too early, in all retries.
    #[error("the store sent {got} of {size} bytes in each attempt")]
    Truncated {
        /// Bytes that arrived.
        got: u64,
        /// Bytes of the object.
        size: u64,
    },
    /// Two responses are of different versions of the object.
    #[error("was changed while it was read; nothing may write to it during a run")]
    Changed,
    #[error("has {size} bytes, but the limit is {limit}")]
    TooLarge { size: u64, limit: u64 },
    /// The condition of a conditional write does not hold.
    #[error("another process has written it meanwhile")]
    Conflict,
    /// The server does not support listing.
    #[error(
        "the server does not list folders ({reason}); a folder of images needs s3://, gs://, az:// \
         or a server that supports WebDAV"
    )]
    NoListing { reason: String },
    #[error("web servers are read-only; name a file, or an s3://, gs:// or az:// URL")]
    ReadOnly,
    /// The URL names a bucket where an object is needed.
    #[error("names no object; add its name")]
    NoObject,
    #[error("the local file {file} cannot be read for upload: {reason}")]
    Source {
        file: String,
        /// The error of the file system.
        reason: String,
    },
    #[error("is not a valid object name: {reason}")]
    Name {
        /// What is wrong with the name.
        reason: String,
    },
    /// The credentials or settings in the environment are invalid.
    #[error("{reason}; {hint}")]
    Settings {
        /// What is wrong with them.
        reason: String,
        /// Settings that give access.
        hint: &'static str,
    },
}

impl StoreErrorKind {
    /// Whether only this object is affected. Otherwise the whole store may be.
    #[must_use]
    pub fn affects_only_the_object(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::Changed
                | Self::TooLarge { .. }
                | Self::NoObject
                | Self::Name { .. }
        )
    }
}

/// Why a prefetched file cannot be read.
#[derive(Debug)]
pub enum ReadFailure {
    /// Only this file cannot be read.
    File(StoreError),
    /// No file of the store can be read.
    Store(StoreError),
    /// The process is to stop.
    Stopped,
}

//! What can go wrong with a store, in words that say what to do and hold nothing secret.

use super::Url;

/// Why something cannot be had from a store, or not be put there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{url}: {kind}")]
pub struct StoreError {
    /// The object or folder, without credentials.
    pub url: String,
    /// What is wrong.
    pub kind: StoreErrorKind,
}

impl StoreError {
    /// That of what `url` names.
    pub(super) fn new(url: &Url, kind: StoreErrorKind) -> Self {
        Self {
            url: url.to_string(),
            kind,
        }
    }
}

/// What is wrong with an object or its store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// There is no such object, or no such bucket.
    #[error("there is nothing there ({said})")]
    Missing {
        /// The store's answer.
        said: String,
    },
    /// The store does not let us.
    #[error("access is denied ({said}); {hint}")]
    Denied {
        /// The store's answer.
        said: String,
        /// What to set.
        hint: &'static str,
    },
    /// The store does not answer, or cannot answer.
    #[error("the store cannot be reached: {said}")]
    Unreachable {
        /// What happened, after all retries.
        said: String,
    },
    /// The store answered with something else than was asked for.
    #[error("the store answered: {said}")]
    Answer {
        /// The answer.
        said: String,
    },
    /// The body ended before its end.
    #[error("the store sent {got} of {size} bytes, again and again")]
    Cut {
        /// Bytes that came.
        got: u64,
        /// Bytes of the object.
        size: u64,
    },
    /// Two answers are of two versions of the object.
    #[error("was changed while it was read; nothing may write to it during a run")]
    Changed,
    /// The object is larger than may be.
    #[error("has {size} bytes, and more than {limit} are not read")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The most that is read.
        limit: u64,
    },
    /// A conditional write came too late.
    #[error("another process has written it meanwhile")]
    Conflict,
    /// The server cannot list.
    #[error(
        "the server does not list folders ({said}); a folder of images needs s3://, gs://, az:// or \
         a server that speaks WebDAV"
    )]
    NoListing {
        /// The server's answer.
        said: String,
    },
    /// There is no writing to web servers.
    #[error("nothing is written to web servers; name a file, or an s3://, gs:// or az:// URL")]
    ReadOnly,
    /// The URL names a bucket, and an object is needed.
    #[error("names no object; add its name")]
    NoObject,
    /// The file that is to be written to the store cannot be read.
    #[error("{file} is to be written there and cannot be read: {said}")]
    Source {
        /// The file.
        file: String,
        /// The file system's error.
        said: String,
    },
    /// A name that is none.
    #[error("is no name that an object can be asked for by: {said}")]
    Name {
        /// What is wrong with it.
        said: String,
    },
    /// The credentials or settings in the environment are not what they should be.
    #[error("{said}; {hint}")]
    Settings {
        /// What is wrong.
        said: String,
        /// What to set.
        hint: &'static str,
    },
}

impl StoreErrorKind {
    /// Whether only the object can be at fault. Otherwise it may be the store.
    #[must_use]
    pub fn is_of_the_object(&self) -> bool {
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

/// Why a file of a folder cannot be read.
#[derive(Debug)]
pub enum ReadFailure {
    /// It is the file's fault: others can be had.
    File(StoreError),
    /// The store is at fault: no other file could be had either.
    Store(StoreError),
    /// The process shall end.
    Stopped,
}

//! Every way in which a request can be refused or fail, whatever protocol it came by.

use std::time::Duration;

/// Why a request was not answered with a result. The message is for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The request itself is wrong; the sentence says what would be right.
    #[error("{0}")]
    Invalid(String),
    /// The request's body is of a kind that is not read here.
    #[error("{0}")]
    Unsupported(String),
    /// No key, or one that is not in the file.
    #[error("a valid API key is needed: send `Authorization: Bearer KEY` or `x-api-key: KEY`")]
    Unauthorized,
    /// A web page of somebody else's makes a browser send this.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such model or version.
    #[error("{0}")]
    Unknown(String),
    /// The client sends too slowly.
    #[error("the request's body did not arrive within {} s", .0.as_secs_f32())]
    TooSlow(Duration),
    /// The body is larger than is read.
    #[error(
        "the request's body is larger than {limit} bytes, the most that is read; send fewer images \
         at a time, or raise --max-body"
    )]
    TooLarge {
        /// The most bytes that a body may have.
        limit: usize,
    },
    /// A model's files on the server's disk cannot be served.
    #[error("failed to load `{name}`: {reason}")]
    Unloadable {
        /// The model.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no room for this request now.
    #[error("{what}; try again in {} s", .retry_after.as_secs())]
    Overloaded {
        /// What is full.
        what: String,
        /// When there may be room; whole seconds, at least one.
        retry_after: Duration,
    },
    /// The server or the model is not there yet, or no more.
    #[error("{0}")]
    NotReady(String),
    /// The time that the request had is over.
    #[error("the request's deadline passed before it was computed")]
    Deadline,
    /// The engine failed, or something else that is not the client's fault.
    #[error("{0}")]
    Failed(String),
}

impl ServeError {
    /// A word for metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid",
            Self::Unsupported(_) => "unsupported",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::Unknown(_) => "unknown",
            Self::TooSlow(_) => "slow",
            Self::TooLarge { .. } => "too_large",
            Self::Unloadable { .. } => "unloadable",
            Self::Overloaded { .. } => "overloaded",
            Self::NotReady(_) => "not_ready",
            Self::Deadline => "deadline",
            Self::Failed(_) => "failed",
        }
    }

    /// For requests that come while the server is leaving.
    #[must_use]
    pub fn draining() -> Self {
        Self::NotReady("the server is shutting down; ask another one".into())
    }
}

//! The errors of a request, independent of the protocol.

use std::time::Duration;

/// A request failed. The message is sent to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// The request is malformed; the message describes the expected form.
    #[error("{0}")]
    Invalid(String),
    /// The body's content type is not supported.
    #[error("{0}")]
    Unsupported(String),
    /// The API key is missing or wrong.
    #[error("a valid API key is required: send `Authorization: Bearer KEY` or `x-api-key: KEY`")]
    Unauthorized,
    /// A web page of another origin sent the request.
    #[error("{0}")]
    Forbidden(String),
    /// The model, version or resource does not exist.
    #[error("{0}")]
    Unknown(String),
    /// The client sent the body too slowly.
    #[error("the request body did not arrive within {} s", .0.as_secs_f32())]
    TooSlow(Duration),
    /// The body exceeds the size limit.
    #[error(
        "the request body is larger than the limit of {limit} bytes; send fewer images per \
         request, or raise --max-body"
    )]
    TooLarge {
        /// Maximum size of a body in bytes.
        limit: usize,
    },
    /// A model file on the server's disk cannot be loaded.
    #[error("failed to load `{name}`: {reason}")]
    Unloadable { name: String, reason: String },
    /// A queue or a memory limit is full.
    #[error("{what}; try again in {} s", .retry_after.as_secs())]
    Overloaded {
        /// What is full.
        what: String,
        /// Estimated time until there is room; whole seconds, at least one.
        retry_after: Duration,
    },
    /// The server is starting or shutting down, or no model is loaded.
    #[error("{0}")]
    NotReady(String),
    #[error("the request's deadline passed before inference finished")]
    Deadline,
    /// An error of the server: the session failed, or an invariant was violated.
    #[error("{0}")]
    Failed(String),
}

/// Returns an error's text with its hint on the same line, for logs and responses.
pub(super) fn one_line(error: &impl ToString) -> String {
    error.to_string().replace("\nhint: ", "; ")
}

impl ServeError {
    /// Returns the error's name in metrics and traces.
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

    /// Returns the error for requests that arrive during shutdown.
    #[must_use]
    pub fn draining() -> Self {
        Self::NotReady("the server is shutting down".into())
    }
}

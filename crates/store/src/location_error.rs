//! Why a path or URL is invalid.

/// Why a text is not a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{shown}: {kind}")]
pub struct LocationError {
    /// The text, without secrets.
    pub shown: String,
    pub kind: LocationErrorKind,
}

/// What is wrong with a location.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocationErrorKind {
    #[error(
        "URLs begin with s3://, gs://, az://, http://, https:// or file://\n\
         hint: write a local path that looks like a URL as ./{scheme}://…"
    )]
    Scheme {
        /// The text before `://`.
        scheme: String,
    },
    #[error("names no {what}\nhint: write {scheme}://{what}/…")]
    NoHost {
        scheme: &'static str,
        /// `bucket`, `container` or `server`.
        what: &'static str,
    },
    #[error(
        "holds a user or password before `@`, which {scheme}:// URLs do not support\n\
         hint: give credentials in the environment"
    )]
    User { scheme: &'static str },
    #[error("file:// URLs name files on this machine\nhint: write file:///path")]
    OtherMachine,
    /// A `%` without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("is not percent-encoded correctly\nhint: write %25 for a percent sign")]
    Encoding,
    #[error("contains the path segment `{part}`; a segment cannot be empty, `.` or `..`")]
    Part { part: String },
    #[error("contains control characters")]
    Control,
    #[error(
        "this rgby was built without object stores\nhint: build it with the Cargo feature `remote`"
    )]
    NotBuilt,
}

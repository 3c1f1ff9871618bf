//! Translates errors of `object_store` into [`StoreError`]s without secrets.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::super::{Scheme, StoreError, StoreErrorKind, Url};
use super::secrets::Secrets;

/// Maximum number of characters of a store's response in a message.
const MAX_REASON: usize = 200;

/// Translates the errors of one store.
#[derive(Debug, Clone)]
pub(super) struct ErrorTranslator {
    hint: &'static str,
    secrets: Secrets,
}

impl ErrorTranslator {
    pub(super) fn new(url: &Url) -> Self {
        Self {
            hint: credentials_hint(url.scheme()),
            secrets: Secrets::of(url),
        }
    }

    /// Translates an error of a request for `url`.
    pub(super) fn error(&self, url: &Url, error: &Error) -> StoreError {
        StoreError::new(url, self.kind(error))
    }

    /// Translates an error of the settings.
    pub(super) fn settings(&self, url: &Url, error: &Error) -> StoreError {
        let (reason, hint) = (self.secrets.hide(&root_cause(error)), self.hint);
        StoreError::new(url, StoreErrorKind::Settings { reason, hint })
    }

    fn kind(&self, error: &Error) -> StoreErrorKind {
        let hint = self.hint;
        match error {
            Error::AlreadyExists { .. } | Error::Precondition { .. } => {
                return StoreErrorKind::Conflict;
            }
            Error::InvalidPath { source } => {
                let reason = self.secrets.hide(&source.to_string());
                return StoreErrorKind::Name { reason };
            }
            _ => {}
        }
        if let Some(failure) = http_failure(error) {
            let reason = self.transport(failure, error);
            return StoreErrorKind::Unreachable { reason };
        }
        let text = chain_text(error);
        let reason = self.reason(&text);
        match (error, status(&text)) {
            // Stores report expired credentials as a bad request.
            (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _)
            | (_, Some(401 | 403)) => StoreErrorKind::Denied { reason, hint },
            (_, Some(400)) if is_about_credentials(&reason) => {
                StoreErrorKind::Denied { reason, hint }
            }
            (Error::NotFound { .. }, _) | (_, Some(404)) => StoreErrorKind::Missing { reason },
            (_, Some(429 | 500..)) => StoreErrorKind::Unreachable { reason },
            _ => StoreErrorKind::Response { reason },
        }
    }

    /// Describes a connection failure, without the URL of the request.
    fn transport(&self, failure: HttpErrorKind, error: &Error) -> String {
        let what = match failure {
            HttpErrorKind::Connect => "no connection",
            HttpErrorKind::Timeout => "no response in time",
            HttpErrorKind::Interrupted => "the connection was cut",
            _ => "the request failed",
        };
        let cause = self.secrets.hide(&root_cause(error));
        shortened(&format!("{what}: {cause}"))
    }

    /// Returns the status and the error code and message of an XML body. The rest of a body may
    /// contain secrets.
    fn reason(&self, text: &str) -> String {
        let mut parts = Vec::new();
        if let Some(status) = text.split("status code: ").nth(1) {
            let end = status.find([':', '\n']).unwrap_or(status.len());
            parts.push(status[..end].trim().to_owned());
        } else if text.contains("redirect without LOCATION") {
            parts.push("redirected, possibly to another region: set AWS_REGION".into());
        }
        for tag in ["Code", "Message"] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let inner = text.split(&open).nth(1);
            let inner = inner.and_then(|rest| rest.split(&close).next());
            parts.extend(inner.map(|inner| inner.trim().to_owned()));
        }
        if parts.is_empty() {
            parts.push(text.lines().next().unwrap_or_default().to_owned());
        }
        shortened(&self.secrets.hide(&parts.join(": ")))
    }
}

/// Returns the kind of a connection failure, if the error is one.
fn http_failure(error: &Error) -> Option<HttpErrorKind> {
    causes(error).find_map(|cause| cause.downcast_ref::<HttpError>().map(HttpError::kind))
}

/// Whether a response began and was cut off. `object_store` retries responses that never began.
pub(super) fn is_cut_off(error: &Error) -> bool {
    let kind = http_failure(error);
    kind.is_some_and(|kind| !matches!(kind, HttpErrorKind::Connect | HttpErrorKind::Timeout))
}

/// Returns the HTTP status of an error response.
pub(super) fn status_of(error: &Error) -> Option<u16> {
    status(&chain_text(error))
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |error| (*error).source())
}

fn root_cause(error: &Error) -> String {
    causes(error)
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Returns the text of the innermost cause: the outer ones repeat it, with the URL of the request.
fn chain_text(error: &Error) -> String {
    let text = root_cause(error);
    match text.split_once("Server returned ") {
        Some((_, rest)) => format!("Server returned {rest}"),
        None => text,
    }
}

/// Parses the status from the message: `object_store` does not expose it.
fn status(text: &str) -> Option<u16> {
    let digits = text.split("status code: ").nth(1)?;
    digits.get(..3)?.parse().ok()
}

fn is_about_credentials(reason: &str) -> bool {
    let words = [
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "AuthorizationHeader",
    ];
    words.iter().any(|word| reason.contains(word))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Returns the settings that give access to a store.
fn credentials_hint(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN if there is \
             one), AWS_REGION, and AWS_ENDPOINT_URL for stores other than Amazon; for a public bucket \
             AWS_SKIP_SIGNATURE=true"
        }
        Scheme::Gs => {
            "set GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT to a key file; for a \
             public bucket GOOGLE_SKIP_SIGNATURE=true"
        }
        Scheme::Az => {
            "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or \
             AZURE_STORAGE_SAS_TOKEN; for a public container AZURE_SKIP_SIGNATURE=true"
        }
        Scheme::Http | Scheme::Https => {
            "give a signed URL, or the name and password in it: https://user:password@server/…"
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::Location;

    fn translated(message: &str) -> StoreError {
        let Ok(Location::Remote(url)) = Location::parse(OsStr::new("s3://bucket/key")) else {
            panic!("s3://bucket/key");
        };
        let error = Error::Generic {
            store: "S3",
            source: message.to_owned().into(),
        };
        ErrorTranslator::new(&url).error(&url, &error)
    }

    #[test]
    fn error_kinds_follow_from_the_status() {
        let response = |status: &str, body: &str| {
            translated(&format!(
                "Error performing GET http://host/x?sig=1 in 1s - Server returned non-2xx status \
                 code: {status}: {body}"
            ))
        };
        let body = "<?xml?><Error><Code>AccessDenied</Code><Message>No.</Message>\
                    <StringToSign>secret</StringToSign></Error>";
        let error = response("403 Forbidden", body);
        assert!(matches!(&error.kind, StoreErrorKind::Denied { reason, .. }
            if reason == "403 Forbidden: AccessDenied: No."));
        assert!(
            error
                .to_string()
                .starts_with("s3://bucket/key: access is denied"),
            "{error}"
        );
        let expired = "<Error><Code>ExpiredToken</Code></Error>";
        let kind = |status, body| response(status, body).kind;
        assert!(matches!(
            kind("400 Bad Request", expired),
            StoreErrorKind::Denied { .. }
        ));
        assert!(matches!(
            kind("400 Bad Request", ""),
            StoreErrorKind::Response { .. }
        ));
        assert!(matches!(
            kind("404 Not Found", ""),
            StoreErrorKind::Missing { .. }
        ));
        for status in ["429 Too Many Requests", "500 Oh", "503 Service Unavailable"] {
            assert!(
                matches!(kind(status, ""), StoreErrorKind::Unreachable { .. }),
                "{status}"
            );
        }
        let redirected = translated("Received redirect without LOCATION, this normally indicates");
        assert!(
            redirected.to_string().contains("AWS_REGION"),
            "{redirected}"
        );
    }

    #[test]
    fn long_responses_are_shortened() {
        let error = translated(&"ü".repeat(1000)).to_string();
        assert!(
            error.chars().count() < 300 && error.ends_with('…'),
            "{error}"
        );
    }
}

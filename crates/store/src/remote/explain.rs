//! The crate's errors in our words, with what the store said and nothing secret.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

use super::super::{Scheme, StoreError, StoreErrorKind, Url};
use super::secrets::Secrets;

/// Most characters of a store's own words.
const MOST_SAID: usize = 200;

/// What makes errors readable.
#[derive(Debug, Clone)]
pub(super) struct Explain {
    hint: &'static str,
    secrets: Secrets,
}

impl Explain {
    pub(super) fn new(url: &Url) -> Self {
        Self {
            hint: credentials_hint(url.scheme()),
            secrets: Secrets::of(url),
        }
    }

    /// Why `url` cannot be had.
    pub(super) fn error(&self, url: &Url, error: &Error) -> StoreError {
        StoreError::new(url, self.kind(error))
    }

    /// As [`error`](Self::error), where the settings are at fault.
    pub(super) fn settings(&self, url: &Url, error: &Error) -> StoreError {
        let (said, hint) = (self.secrets.hide(&root_cause(error)), self.hint);
        StoreError::new(url, StoreErrorKind::Settings { said, hint })
    }

    fn kind(&self, error: &Error) -> StoreErrorKind {
        let hint = self.hint;
        match error {
            Error::AlreadyExists { .. } | Error::Precondition { .. } => {
                return StoreErrorKind::Conflict;
            }
            Error::InvalidPath { source } => {
                let said = self.secrets.hide(&source.to_string());
                return StoreErrorKind::Name { said };
            }
            _ => {}
        }
        if let Some(failure) = http_failure(error) {
            let said = self.transport(failure, error);
            return StoreErrorKind::Unreachable { said };
        }
        let text = chain_text(error);
        let said = self.said(&text);
        match (error, status(&text)) {
            // Credentials that ran out are a bad request.
            (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _)
            | (_, Some(401 | 403)) => StoreErrorKind::Denied { said, hint },
            (_, Some(400)) if is_of_credentials(&said) => StoreErrorKind::Denied { said, hint },
            (Error::NotFound { .. }, _) | (_, Some(404)) => StoreErrorKind::Missing { said },
            (_, Some(429 | 500..)) => StoreErrorKind::Unreachable { said },
            _ => StoreErrorKind::Answer { said },
        }
    }

    /// What happened on the way, without the URL that was asked for.
    fn transport(&self, failure: HttpErrorKind, error: &Error) -> String {
        let what = match failure {
            HttpErrorKind::Connect => "no connection",
            HttpErrorKind::Timeout => "no answer in time",
            HttpErrorKind::Interrupted => "the connection was cut",
            _ => "the exchange failed",
        };
        let cause = self.secrets.hide(&root_cause(error));
        shortened(&format!("{what}: {cause}"))
    }

    /// The status and what an XML or JSON body says of it; the rest of a body is for nobody.
    fn said(&self, text: &str) -> String {
        let mut said = Vec::new();
        if let Some(status) = text.split("status code: ").nth(1) {
            let end = status.find([':', '\n']).unwrap_or(status.len());
            said.push(status[..end].trim().to_owned());
        } else if text.contains("redirect without LOCATION") {
            said.push("it is elsewhere, perhaps in another region: set AWS_REGION".into());
        }
        for tag in ["Code", "Message"] {
            let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
            let inner = text.split(&open).nth(1);
            let inner = inner.and_then(|rest| rest.split(&close).next());
            said.extend(inner.map(|inner| inner.trim().to_owned()));
        }
        if said.is_empty() {
            said.push(text.lines().next().unwrap_or_default().to_owned());
        }
        shortened(&self.secrets.hide(&said.join(": ")))
    }
}

/// The kind of a failure on the way, if it is one.
fn http_failure(error: &Error) -> Option<HttpErrorKind> {
    causes(error).find_map(|cause| cause.downcast_ref::<HttpError>().map(HttpError::kind))
}

/// Whether an answer began and did not end. What never began was tried again before.
pub(super) fn is_cut(error: &Error) -> bool {
    let kind = http_failure(error);
    kind.is_some_and(|kind| !matches!(kind, HttpErrorKind::Connect | HttpErrorKind::Timeout))
}

/// The status of an answer that is an error.
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

/// The text of the innermost cause: those around it repeat it, with the request's URL.
fn chain_text(error: &Error) -> String {
    let text = root_cause(error);
    match text.split_once("Server returned ") {
        Some((_, rest)) => format!("Server returned {rest}"),
        None => text,
    }
}

/// The crate has no way to ask for it, but to read its message.
fn status(text: &str) -> Option<u16> {
    let digits = text.split("status code: ").nth(1)?;
    digits.get(..3)?.parse().ok()
}

fn is_of_credentials(said: &str) -> bool {
    let words = [
        "ExpiredToken",
        "InvalidToken",
        "TokenRefreshRequired",
        "AuthorizationHeader",
    ];
    words.iter().any(|word| said.contains(word))
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_SAID) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What gives access to a store.
fn credentials_hint(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN if there is \
             one), AWS_REGION, and AWS_ENDPOINT_URL where it is not Amazon's; for a public bucket \
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

    fn explained(message: &str) -> StoreError {
        let Ok(Location::Remote(url)) = Location::parse(OsStr::new("s3://bucket/key")) else {
            panic!("s3://bucket/key");
        };
        let error = Error::Generic {
            store: "S3",
            source: message.to_owned().into(),
        };
        Explain::new(&url).error(&url, &error)
    }

    #[test]
    fn answers_are_told_apart_by_their_status() {
        let answer = |status: &str, body: &str| {
            explained(&format!(
                "Error performing GET http://host/x?sig=1 in 1s - Server returned non-2xx status \
                 code: {status}: {body}"
            ))
        };
        let body = "<?xml?><Error><Code>AccessDenied</Code><Message>No.</Message>\
                    <StringToSign>secret</StringToSign></Error>";
        let error = answer("403 Forbidden", body);
        assert!(matches!(&error.kind, StoreErrorKind::Denied { said, .. }
            if said == "403 Forbidden: AccessDenied: No."));
        assert!(
            error
                .to_string()
                .starts_with("s3://bucket/key: access is denied"),
            "{error}"
        );
        let expired = "<Error><Code>ExpiredToken</Code></Error>";
        let kind = |status, body| answer(status, body).kind;
        assert!(matches!(
            kind("400 Bad Request", expired),
            StoreErrorKind::Denied { .. }
        ));
        assert!(matches!(
            kind("400 Bad Request", ""),
            StoreErrorKind::Answer { .. }
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
        let elsewhere = explained("Received redirect without LOCATION, this normally indicates");
        assert!(elsewhere.to_string().contains("AWS_REGION"), "{elsewhere}");
    }

    #[test]
    fn long_answers_are_cut() {
        let error = explained(&"ü".repeat(1000)).to_string();
        assert!(
            error.chars().count() < 300 && error.ends_with('…'),
            "{error}"
        );
    }
}

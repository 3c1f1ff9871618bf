//! Conversion of errors to gRPC statuses.

use std::error::Error;
use std::sync::Arc;

use axum::response::Response;
use tonic::{Code, Status};

use crate::ServeError;
use crate::http::RequestOutcome;

/// Metadata key of the delay before an automatic retry.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// Returns the code of an error.
fn code(error: &ServeError) -> Code {
    match error {
        ServeError::Invalid(_) | ServeError::Unsupported(_) => Code::InvalidArgument,
        ServeError::Unauthorized => Code::Unauthenticated,
        ServeError::Forbidden(_) => Code::PermissionDenied,
        ServeError::Unknown(_) => Code::NotFound,
        ServeError::TooLarge { .. } | ServeError::Overloaded { .. } => Code::ResourceExhausted,
        ServeError::Unloadable { .. } => Code::FailedPrecondition,
        ServeError::NotReady(_) => Code::Unavailable,
        ServeError::TooSlow(_) | ServeError::Deadline => Code::DeadlineExceeded,
        ServeError::Failed(_) => Code::Internal,
    }
}

/// Converts an error to a status.
pub(super) fn status(error: ServeError) -> Status {
    status_with_code(code(&error), error)
}

/// Converts an error to a status with another code than usual.
pub(super) fn status_with_code(code: Code, error: ServeError) -> Status {
    let mut status = Status::new(code, error.to_string());
    if let ServeError::Overloaded { retry_after, .. } = &error {
        let millis = retry_after.as_secs() * 1000;
        status.metadata_mut().insert(PUSHBACK, millis.into());
    }
    status.set_source(Arc::new(error));
    status
}

/// Returns code and error cause of a response.
pub(super) fn outcome(response: &Response) -> RequestOutcome {
    let Some(status) = response.extensions().get::<Status>() else {
        return RequestOutcome {
            status: Code::Ok as u16,
            cause: None,
        };
    };
    let error = status.source().and_then(|error| error.downcast_ref());
    RequestOutcome {
        status: status.code() as u16,
        // tonic itself rejects only requests that violate the protocol.
        cause: Some(error.map_or("invalid", ServeError::cause)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;

    use super::*;

    #[test]
    fn statuses_have_code_cause_and_retry_delay() {
        let full = ServeError::Overloaded {
            what: "the queue is full".into(),
            retry_after: Duration::from_secs(3),
        };
        for (error, code, pushback) in [
            (full, 8, Some("3000")),
            (ServeError::draining(), 14, None),
            (ServeError::Deadline, 4, None),
            (ServeError::Unauthorized, 16, None),
            (ServeError::TooLarge { limit: 1 }, 8, None),
        ] {
            let cause = error.cause();
            let response = status(error).into_http::<Body>();
            let outcome = outcome(&response);
            assert_eq!((outcome.status, outcome.cause), (code, Some(cause)));
            let headers = response.headers();
            assert_eq!(headers["grpc-status"], code.to_string());
            let found = headers.get(PUSHBACK).map(|value| value.to_str().unwrap());
            assert_eq!(found, pushback);
        }
    }
}

//! The server over gRPC: the Open Inference Protocol's gRPC half with the model repository
//! extension.
//!
//! [`tonic`] has the messages and their framing; connections, keys, limits, counting and logging
//! are those of all protocols over HTTP.

mod codec;
mod infer;
mod proto;
mod service;
mod status;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Version, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use tonic::service::Routes;
use tonic::{Code, Status};

pub use self::codec::decode;
pub use self::infer::{Wanted, parse};
pub use self::proto::ModelInferRequest;
use self::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use self::service::Calls;
use self::status::{coded, outcome, status};
use super::ServeError;
use super::http::{Label, Protocol, RequestGate, around};

/// What happens around the handlers.
const PROTOCOL: Protocol = Protocol {
    attributes: ["rpc.system", "rpc.method", "rpc.grpc.status_code"],
    label,
    is_open: |path| matches!(method(path), Some("ServerLive" | "ServerReady")),
    refuse: |error| status(error).into_http(),
    outcome,
};

/// What comes before a method's name in a path.
const SERVICE: &str = "/inference.GRPCInferenceService/";
/// The methods that are answered.
const METHODS: [&str; 9] = [
    "ServerLive",
    "ServerReady",
    "ModelReady",
    "ServerMetadata",
    "ModelMetadata",
    INFER,
    "RepositoryIndex",
    "RepositoryModelLoad",
    "RepositoryModelUnload",
];
const INFER: &str = "ModelInfer";

/// All methods.
pub fn router(gate: RequestGate) -> Router {
    let most = gate.bodies.limits().max_body;
    let calls = GrpcInferenceServiceServer::new(Calls::new(gate.service.clone()));
    let calls = Routes::new(calls.max_decoding_message_size(most)).into_axum_router();
    let calls = calls.layer(from_fn_with_state(gate.clone(), gather));
    around(calls, gate, PROTOCOL)
}

/// The method that a path names, if it is answered.
fn method(path: &str) -> Option<&'static str> {
    let name = path.strip_prefix(SERVICE)?;
    METHODS.into_iter().find(|method| *method == name)
}

fn label(request: &Request) -> Label {
    let method = method(request.uri().path());
    Label {
        method: "gRPC",
        route: method.map_or_else(|| "none".into(), |method| format!("{SERVICE}{method}")),
        quiet: matches!(method, Some("ServerLive" | "ServerReady")),
    }
}

/// Reads a call's message whole, within the limits, before it is looked into.
async fn gather(State(gate): State<RequestGate>, request: Request, next: Next) -> Response {
    if !is_grpc(&request) {
        let message = "this port speaks gRPC only: HTTP/2 with the content type application/grpc";
        let mut response = status(ServeError::Unsupported(message.into())).into_http();
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    match answer(&gate, request, next).await {
        Ok(response) => response,
        Err(status) => status.into_http(),
    }
}

async fn answer(gate: &RequestGate, request: Request, next: Next) -> Result<Response, Status> {
    let Some(method) = method(request.uri().path()) else {
        let path: String = request.uri().path().chars().take(100).collect();
        let message = format!(
            "there is no method `{path}` here, only {}",
            METHODS.join(", ")
        );
        return Err(coded(Code::Unimplemented, ServeError::Unknown(message)));
    };
    // Owed an answer from here on, as over REST: before the message has come.
    let accepted = (method == INFER).then(|| gate.service.lifecycle().accept());
    let _accepted = accepted.transpose().map_err(status)?;
    let (parts, body) = request.into_parts();
    let read = gate.bodies.read_framed(body, message_len).await;
    let read = read.map_err(status)?;
    let body = Body::from(read.bytes.clone());
    // The room for the message is given back with `read`, once it is answered.
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// The length of a message that begins with those bytes, of which the first says whether it is
/// compressed.
fn message_len([_, length @ ..]: [u8; 5]) -> usize {
    u32::from_be_bytes(length) as usize
}

/// Whether it is a call at all. Browsers send no such content type to others' servers unless these
/// let them.
fn is_grpc(request: &Request) -> bool {
    let content = request.headers().get(header::CONTENT_TYPE);
    let content = content.map_or(&b""[..], HeaderValue::as_bytes);
    let rest = content.strip_prefix(b"application/grpc");
    request.version() == Version::HTTP_2 && matches!(rest, Some([] | [b'+' | b';', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_methods_of_the_protocol_file_are_known() {
        let text = include_str!("inference.proto");
        let calls = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("rpc "));
        let names = calls.map(|call| call.split('(').next().unwrap());
        assert!(names.eq(METHODS));
        assert_eq!(method(&format!("{SERVICE}{INFER}")), Some(INFER));
        for other in [
            "ModelInfer",
            "/inference.GRPCInferenceService/",
            "/x/ModelInfer",
        ] {
            assert_eq!(method(other), None, "{other}");
        }
    }

    #[test]
    fn only_grpc_over_http_2_is_taken_for_it() {
        let is = |version, content: &str| {
            let request = Request::builder().version(version);
            let request = request.header(header::CONTENT_TYPE, content);
            is_grpc(&request.body(Body::empty()).unwrap())
        };
        for content in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc;x",
        ] {
            assert!(is(Version::HTTP_2, content), "{content}");
            assert!(!is(Version::HTTP_11, content), "{content}");
        }
        for content in ["", "text/plain", "application/json", "application/grpc-web"] {
            assert!(!is(Version::HTTP_2, content), "{content}");
        }
        assert!(!is_grpc(&Request::new(Body::empty())));
    }
}

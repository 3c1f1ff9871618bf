//! The gRPC API: the Open Inference Protocol with the model repository extension.
//!
//! [`tonic`] provides messages and framing. Connections, API keys, limits, metrics and logs are
//! shared with all protocols over HTTP.

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
pub use self::infer::{GrpcResponseFormat, parse};
pub use self::proto::ModelInferRequest;
use self::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use self::service::GrpcHandlers;
use self::status::{outcome, status, status_with_code};
use super::ServeError;
use super::http::{ProtocolAdapter, RequestGate, RouteLabel, with_layers};

const PROTOCOL: ProtocolAdapter = ProtocolAdapter {
    attributes: ["rpc.system", "rpc.method", "rpc.grpc.status_code"],
    label,
    is_open: |path| matches!(method(path), Some("ServerLive" | "ServerReady")),
    refuse: |error| status(error).into_http(),
    outcome,
};

/// The part of a path before the method name.
const SERVICE: &str = "/inference.GRPCInferenceService/";
/// The supported methods.
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

/// Returns the routes of all methods.
pub fn router(gate: RequestGate) -> Router {
    let max_len = gate.body_reader.limits().max_body;
    let service = GrpcInferenceServiceServer::new(GrpcHandlers::new(gate.service.clone()));
    let routes = Routes::new(service.max_decoding_message_size(max_len)).into_axum_router();
    let routes = routes.layer(from_fn_with_state(gate.clone(), read_message));
    with_layers(routes, gate, PROTOCOL)
}

/// Returns the method of a path, if it is supported.
fn method(path: &str) -> Option<&'static str> {
    let name = path.strip_prefix(SERVICE)?;
    METHODS.into_iter().find(|method| *method == name)
}

fn label(request: &Request) -> RouteLabel {
    let method = method(request.uri().path());
    RouteLabel {
        method: "gRPC",
        route: method.map_or_else(|| "none".into(), |method| format!("{SERVICE}{method}")),
        quiet: matches!(method, Some("ServerLive" | "ServerReady")),
    }
}

/// Reads a call's complete message, within the limits, before tonic decodes it.
async fn read_message(State(gate): State<RequestGate>, request: Request, next: Next) -> Response {
    if !is_grpc(&request) {
        let message = "this port supports only gRPC: HTTP/2 with content type application/grpc";
        let mut response = status(ServeError::Unsupported(message.into())).into_http();
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return response;
    }
    match call(&gate, request, next).await {
        Ok(response) => response,
        Err(status) => status.into_http(),
    }
}

async fn call(gate: &RequestGate, request: Request, next: Next) -> Result<Response, Status> {
    let Some(method) = method(request.uri().path()) else {
        let path: String = request.uri().path().chars().take(100).collect();
        let message = format!(
            "unknown method `{path}`; the methods are {}",
            METHODS.join(", ")
        );
        return Err(status_with_code(
            Code::Unimplemented,
            ServeError::Unknown(message),
        ));
    };
    // Accepted before the message is read, as over REST, so that a shutdown waits for it.
    let accepted = (method == INFER).then(|| gate.service.lifecycle().accept());
    let _accepted = accepted.transpose().map_err(status)?;
    let (parts, body) = request.into_parts();
    let read = gate.body_reader.read_framed(body, message_len).await;
    let read = read.map_err(status)?;
    let body = Body::from(read.bytes.clone());
    // `read` is dropped after the response, which returns the message's memory to the budget.
    Ok(next.run(Request::from_parts(parts, body)).await)
}

/// Returns the message length from a gRPC frame header. Its first byte is the compression flag.
fn message_len([_, length @ ..]: [u8; 5]) -> usize {
    u32::from_be_bytes(length) as usize
}

/// Returns whether the request is a gRPC call. Browsers do not send this content type to another
/// origin unless the server allows it.
fn is_grpc(request: &Request) -> bool {
    let content = request.headers().get(header::CONTENT_TYPE);
    let content = content.map_or(&b""[..], HeaderValue::as_bytes);
    let suffix = content.strip_prefix(b"application/grpc");
    request.version() == Version::HTTP_2 && matches!(suffix, Some([] | [b'+' | b';', ..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_methods_of_the_proto_file_are_supported() {
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
    fn only_grpc_over_http_2_is_accepted() {
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

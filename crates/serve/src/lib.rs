//! Inference server: the Open Inference Protocol over HTTP and gRPC, and image uploads.
//!
//! A request passes through these stages, each of them bounded:
//!
//! ```text
//! listener ─▶ http ─▶ rest, grpc ─▶ Service::infer ─▶ preparer threads ─▶ Queue ─▶ workers
//! (connections, (API keys, (bytes to    (deadline)       (parse, decode,    (images)  (one thread
//!  headers)      bodies)    input)                        resize)                      a session)
//! ```
//!
//! [`Service`] is independent of the protocol. [`rest`] and [`grpc`] convert bytes to
//! [`InferenceInput`] and outputs to bytes; both use the same tensor checks. [`Repository`] selects
//! the [`Model`] for a request. [`run`] runs a server from start to shutdown.

mod auth;
mod error;
pub mod grpc;
mod http;
mod input;
mod lifecycle;
mod listener;
mod metadata;
mod metrics;
mod model;
mod queue;
mod repository;
pub mod rest;
mod run;
mod service;
mod tensor;
mod tls;
mod trace;
mod upload;
mod worker;

pub use auth::{ApiKeyError, ApiKeys};
pub use error::ServeError;
use error::one_line;
pub use http::{BodyLimits, RequestGate};
use input::PLANES_NAME;
pub use input::{Floats, InferenceInput, Pixels};
use lifecycle::AcceptedRequest;
pub use lifecycle::Lifecycle;
pub use listener::ConnectionLimits;
pub use metrics::Metrics;
pub use model::{Engines, Model, ModelLoader};
pub use queue::Batching;
pub use repository::{IndexEntry, ModelSource, Repository};
pub use run::{ListenAddresses, Options, RunError, ShutdownReport, Signal, run};
pub use service::{ParsedRequest, Service};
pub use tls::{Tls, TlsError, TlsFiles};
use trace::Trace;
pub use trace::{Collector, TraceError};
pub use upload::{Preview, Upload, UploadFiles};
use upload::{WHOLE_NAME, gray_png, upload_limits};

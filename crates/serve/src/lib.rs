//! An inference server: the Open Inference Protocol over HTTP and gRPC, and uploads of images.
//!
//! A request goes through these stages, each of them bounded:
//!
//! ```text
//! listener ─▶ http ─▶ rest, grpc ─▶ Service::infer ─▶ preparers ─▶ Queue ─▶ Worker, Engine ─▶ back
//! (connections, (keys,  (bytes to      (deadline)        (parse, decode,  (images)  (one thread
//!  headers)      bodies) Input)                           resize)                    a session)
//! ```
//!
//! [`Service`] knows no protocol; [`rest`] and [`grpc`] turn bytes into its [`InferenceInput`] and its answers
//! into bytes, through the same checks of tensors. [`Repository`] says which [`Model`] answers, and
//! [`run`] is the whole life of a server.

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

pub use auth::{ApiKeys, KeyError};
pub use error::ServeError;
pub use http::{BodyLimits, RequestGate};
pub use input::{Floats, InferenceInput, Pixels};
use input::{PLANES_NAME, upload_limits};
use lifecycle::Accepted;
pub use lifecycle::Lifecycle;
pub use listener::Connections;
pub use metrics::Metrics;
pub use model::{Engines, Model, ModelLoader};
pub use queue::Batching;
pub use repository::{IndexEntry, ModelSource, Repository};
pub use run::{Addresses, Options, RunError, ShutdownReport, Signal, run};
pub use service::{Parsed, Service};
pub use tls::{Tls, TlsError, TlsFiles};
use trace::Trace;
pub use trace::{Collector, TraceError};
pub use upload::{Preview, Upload, UploadFiles};
use upload::{WHOLE_NAME, gray_png};

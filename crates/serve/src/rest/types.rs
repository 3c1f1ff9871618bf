//! JSON types of the Open Inference Protocol, and error responses for the API description.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::schema::{Object, ObjectBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::metadata::TensorMetadata;

/// An error
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What failed and why, and what to do
    pub error: String,
}

/// Errors of inference requests
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes the errors in the OpenAPI description")]
pub(super) enum InferErrors {
    /// The request is malformed
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The API key is missing or wrong
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A web page of another origin sent the request
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The model or version does not exist
    #[response(status = 404)]
    Unknown(ErrorBody),
    /// The body did not arrive in time
    #[response(status = 408)]
    TooSlow(ErrorBody),
    /// The body is too large
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body's content type or encoding is not supported
    #[response(status = 415)]
    Unsupported(ErrorBody),
    /// The queue is full; `Retry-After` is the delay before a retry
    #[response(status = 429)]
    Overloaded(ErrorBody),
    /// The headers are too large
    #[response(status = 431)]
    TooManyHeaders,
    /// Inference failed
    #[response(status = 500)]
    Failed(ErrorBody),
    /// The server is starting or shutting down
    #[response(status = 503)]
    NotReady(ErrorBody),
    /// The deadline passed before inference finished
    #[response(status = 504)]
    Deadline(ErrorBody),
}

/// Errors of most other requests
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes the errors in the OpenAPI description")]
pub(super) enum CommonErrors {
    /// The path is malformed
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The API key is missing or wrong
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A web page of another origin sent the request
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The model or version does not exist
    #[response(status = 404)]
    Unknown(ErrorBody),
    /// The headers are too large
    #[response(status = 431)]
    TooManyHeaders,
    /// The server is starting or shutting down
    #[response(status = 503)]
    NotReady(ErrorBody),
}

/// Errors of requests for a sample
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes the errors in the OpenAPI description")]
pub(super) enum SampleErrors {
    /// The path is malformed
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The API key is missing or wrong
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A web page of another origin sent the request
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The sample does not exist
    #[response(status = 404)]
    Unknown(ErrorBody),
    /// The headers are too large
    #[response(status = 431)]
    TooManyHeaders,
    /// The sample cannot be drawn
    #[response(status = 500)]
    Failed(ErrorBody),
    /// The server is starting or shutting down
    #[response(status = 503)]
    NotReady(ErrorBody),
}

/// Responses other than 200 to requests for the page
#[derive(IntoResponses)]
#[allow(dead_code, reason = "describes the errors in the OpenAPI description")]
pub(super) enum PageErrors {
    /// The client's cached copy is current
    #[response(status = 304)]
    NotModified,
    /// The path is malformed
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The browser used a host name that the server does not accept
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// The file does not exist
    #[response(status = 404)]
    Unknown(ErrorBody),
    /// The headers are too large
    #[response(status = 431)]
    TooManyHeaders,
}

/// The server's metadata
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerMetadata {
    /// `rgby`
    #[schema(value_type = String)]
    pub name: &'static str,
    #[schema(value_type = String)]
    pub version: &'static str,
    /// Supported extensions of the protocol
    #[schema(value_type = Vec<String>)]
    pub extensions: Vec<&'static str>,
}

/// A model's metadata
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMetadata {
    pub name: String,
    /// The loaded versions, the newest last
    pub versions: Vec<String>,
    /// File format
    #[schema(value_type = String)]
    pub platform: &'static str,
    /// The possible inputs; a request has exactly one of them
    pub inputs: Vec<TensorMetadata>,
    pub outputs: Vec<TensorMetadata>,
    /// Further properties, for example classes, thresholds, stains and the file's SHA-256
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
}

/// Readiness of a model
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelReady {
    pub name: String,
    /// Always true; a model that is not ready is an error
    pub ready: bool,
}

/// An inference request
#[derive(Debug, Deserialize, ToSchema)]
pub struct InferRequest {
    /// Copied to the response
    #[schema(required = false)]
    pub id: Option<String>,
    /// `binary_data_output`: default of `binary_data` for all outputs.
    /// `timeout`: maximum processing time in microseconds
    #[serde(default)]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// One tensor: `image` or `planes`
    pub inputs: Vec<InputTensor>,
    /// The requested outputs. Default: all
    #[serde(default)]
    pub outputs: Vec<RequestedOutput>,
}

/// An input tensor
#[derive(Debug, Deserialize, ToSchema)]
pub struct InputTensor {
    /// `image`: preprocessed, `[n, C, S, S]`. `planes`: gray values of the stains, `[n, C, H, W]`
    /// or `[C, H, W]`, which the server preprocesses
    pub name: String,
    /// Size of each dimension
    pub shape: Vec<u64>,
    /// FP32 for `image`, UINT8 or UINT16 for `planes`
    pub datatype: String,
    /// `binary_data_size`: size in bytes of this tensor after the JSON
    #[serde(default)]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// The values in row-major order, flat or nested
    #[serde(default)]
    #[schema(value_type = Vec<f64>)]
    pub data: Option<super::JsonNumbers>,
}

/// A requested output
#[derive(Debug, Deserialize, ToSchema)]
pub struct RequestedOutput {
    /// `probabilities`, or `embeddings` if the model has them
    pub name: String,
    /// `binary_data`: whether to return the output as binary data after the JSON
    #[serde(default)]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
}

/// The response to an inference request
#[derive(Debug, Serialize, ToSchema)]
pub struct InferResponse {
    pub model_name: String,
    pub model_version: String,
    /// The request's id
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub outputs: Vec<OutputTensor>,
}

/// An output tensor
#[derive(Debug, Serialize, ToSchema)]
pub struct OutputTensor {
    /// `probabilities` or `embeddings`
    #[schema(value_type = String)]
    pub name: &'static str,
    /// `[n, K]`
    pub shape: [usize; 2],
    /// FP32
    #[schema(value_type = String)]
    pub datatype: &'static str,
    /// `binary_data_size`: size in bytes of this tensor after the JSON
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// The values in row-major order
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<f32>>,
}

/// Filter of the repository index
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct IndexRequest {
    /// List only loaded models
    #[serde(default)]
    pub ready: bool,
}

fn empty_object() -> Object {
    ObjectBuilder::new().max_properties(Some(0)).build()
}

/// Options of loading a model
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct LoadRequest {
    /// Must be empty
    #[serde(default)]
    #[schema(schema_with = empty_object)]
    pub parameters: Map<String, Value>,
}

/// One version of a model in the repository
#[derive(Debug, Serialize, ToSchema)]
pub struct IndexedModel {
    pub name: String,
    pub version: String,
    /// `READY` or `UNAVAILABLE`
    #[schema(value_type = String)]
    pub state: &'static str,
    /// Error of the model's last load; empty if it succeeded
    pub reason: String,
}

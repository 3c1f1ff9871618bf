//! The JSON that goes in and out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::openapi::schema::{Object, ObjectBuilder};
use utoipa::{IntoResponses, ToSchema};

use crate::metadata::TensorMetadata;

/// Why a request was refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong, and what would be right.
    pub error: String,
}

/// How requests for inference can fail.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it only describes")]
pub(super) enum InferErrors {
    /// The request is wrong; the message says what would be right.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// No valid API key was sent, and this server wants one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A web page of another origin sent this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such model or version.
    #[response(status = 404)]
    Unknown(ErrorBody),
    /// The body took too long to arrive.
    #[response(status = 408)]
    TooSlow(ErrorBody),
    /// The body is too large.
    #[response(status = 413)]
    TooLarge(ErrorBody),
    /// The body's type or encoding is not understood.
    #[response(status = 415)]
    Unsupported(ErrorBody),
    /// The queue is full; `Retry-After` says when to try again.
    #[response(status = 429)]
    Overloaded(ErrorBody),
    /// The head of the request is too large.
    #[response(status = 431)]
    TooManyHeaders,
    /// The engine failed.
    #[response(status = 500)]
    Failed(ErrorBody),
    /// The server is starting or leaving.
    #[response(status = 503)]
    NotReady(ErrorBody),
    /// The deadline passed before the images were computed.
    #[response(status = 504)]
    Deadline(ErrorBody),
}

/// How other requests can fail.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it only describes")]
pub(super) enum LookErrors {
    /// The path is no text.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// No valid API key was sent, and this server wants one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A web page of another origin sent this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such model or version.
    #[response(status = 404)]
    Unknown(ErrorBody),
    /// The head of the request is too large.
    #[response(status = 431)]
    TooManyHeaders,
    /// The server is starting or leaving.
    #[response(status = 503)]
    NotReady(ErrorBody),
}

/// How a request for a sample can fail.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it only describes")]
pub(super) enum SampleErrors {
    /// The path is no text.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// No valid API key was sent, and this server wants one.
    #[response(status = 401)]
    Unauthorized(ErrorBody),
    /// A web page of another origin sent this.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such sample.
    #[response(status = 404)]
    Unknown(ErrorBody),
    /// The head of the request is too large.
    #[response(status = 431)]
    TooManyHeaders,
    /// It cannot be drawn.
    #[response(status = 500)]
    Failed(ErrorBody),
    /// The server is starting or leaving.
    #[response(status = 503)]
    NotReady(ErrorBody),
}

/// How a request for the page can fail.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "it only describes")]
pub(super) enum PageErrors {
    /// The client has it already.
    #[response(status = 304)]
    NotModified,
    /// The path is no text.
    #[response(status = 400)]
    Invalid(ErrorBody),
    /// The browser calls the server by a name that is not its own.
    #[response(status = 403)]
    Forbidden(ErrorBody),
    /// There is no such file.
    #[response(status = 404)]
    Unknown(ErrorBody),
    /// The head of the request is too large.
    #[response(status = 431)]
    TooManyHeaders,
}

/// What this server is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerMetadata {
    /// `rgby`.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// Its version.
    #[schema(value_type = String)]
    pub version: &'static str,
    /// The protocol's extensions that it has.
    #[schema(value_type = Vec<String>)]
    pub extensions: Vec<&'static str>,
}

/// What a model is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelMetadata {
    /// Its name.
    pub name: String,
    /// The versions that are loaded, the newest last.
    pub versions: Vec<String>,
    /// What kind of file it is.
    #[schema(value_type = String)]
    pub platform: &'static str,
    /// The inputs of which a request has one.
    pub inputs: Vec<TensorMetadata>,
    /// The outputs.
    pub outputs: Vec<TensorMetadata>,
    /// What else there is to know: the names of classes and stains, thresholds, the file's hash.
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
}

/// Whether a model is ready.
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelReady {
    /// Its name.
    pub name: String,
    /// Always true; else the answer is an error.
    pub ready: bool,
}

/// A request for inference.
#[derive(Debug, Deserialize, ToSchema)]
pub struct InferRequest {
    /// It comes back with the answer.
    #[schema(required = false)]
    pub id: Option<String>,
    /// `binary_data_output`: whether outputs come as binary data where they do not say
    /// themselves. `timeout`: microseconds after which the answer is of no use.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// One tensor: `image` or `planes`.
    pub inputs: Vec<InputTensor>,
    /// The outputs that are wanted; all if none is named.
    #[serde(default)]
    pub outputs: Vec<WantedOutput>,
}

/// Images.
#[derive(Debug, Deserialize, ToSchema)]
pub struct InputTensor {
    /// `image`: preprocessed, `[n, C, S, S]`. `planes`: gray values of the stains, `[n, C, H, W]`
    /// or `[C, H, W]`, which the server preprocesses.
    pub name: String,
    /// Its size in each dimension.
    pub shape: Vec<u64>,
    /// FP32 for `image`, UINT8 or UINT16 for `planes`.
    pub datatype: String,
    /// `binary_data_size`: bytes of this tensor behind the JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// The values in row-major order, flat or nested.
    #[serde(default)]
    #[schema(value_type = Vec<f64>)]
    pub data: Option<super::Numbers>,
}

/// An output that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
pub struct WantedOutput {
    /// `probabilities`, or `embeddings` if the model has them.
    pub name: String,
    /// `binary_data`: whether it comes as binary data behind the JSON.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
}

/// The answer to a request for inference.
#[derive(Debug, Serialize, ToSchema)]
pub struct InferResponse {
    /// The model that answered.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The outputs.
    pub outputs: Vec<OutputTensor>,
}

/// What the model says.
#[derive(Debug, Serialize, ToSchema)]
pub struct OutputTensor {
    /// `probabilities` or `embeddings`.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// `[n, K]`.
    pub shape: [usize; 2],
    /// FP32.
    #[schema(value_type = String)]
    pub datatype: &'static str,
    /// `binary_data_size`: bytes of this tensor behind the JSON.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub parameters: Map<String, Value>,
    /// The values in row-major order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Vec<f32>>,
}

/// Which models to list.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct IndexRequest {
    /// Only those that are loaded.
    #[serde(default)]
    pub ready: bool,
}

fn empty_object() -> Object {
    ObjectBuilder::new().max_properties(Some(0)).build()
}

/// How to load a model.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct LoadRequest {
    /// Must be empty.
    #[serde(default)]
    #[schema(schema_with = empty_object)]
    pub parameters: Map<String, Value>,
}

/// A model in the repository.
#[derive(Debug, Serialize, ToSchema)]
pub struct IndexedModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `READY` or `UNAVAILABLE`.
    #[schema(value_type = String)]
    pub state: &'static str,
    /// Why its last loading failed.
    pub reason: String,
}

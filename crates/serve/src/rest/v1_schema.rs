//! JSON types of the `/v1` routes: image uploads, explanations and server information.

use serde::Serialize;
use utoipa::ToSchema;

use super::types::ErrorBody;

/// One image: one file per stain of the model, or one file with all stains
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form in the OpenAPI description")]
pub(super) struct ImageForm {
    /// PNG, JPEG or TIFF with 8 or 16 bits; of a colour image, the brightest channel is used
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    red: String,
    /// As `red`
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    green: String,
    /// As `red`
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    blue: String,
    /// As `red`
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    yellow: String,
    /// Instead of one file per stain: a TIFF or OME-TIFF file with a channel for each stain
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    image: String,
    /// The channel of `image` for each of the model's stains, in their order, separated by commas:
    /// names in the OME-XML, or indices from 0. Default: the names of the stains
    #[schema(required = false)]
    channels: String,
    /// Model name; required if several models are loaded
    #[schema(required = false)]
    model: String,
    /// Model version. Default: the newest
    #[schema(required = false)]
    version: String,
}

/// An image to classify
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form in the OpenAPI description")]
pub(super) struct PredictForm {
    #[serde(flatten)]
    image: ImageForm,
    /// Return the decoded planes as previews of at most this many pixels per side
    #[schema(required = false, minimum = 1, maximum = 1024)]
    planes: u32,
}

/// An image to classify and explain
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the form in the OpenAPI description")]
pub(super) struct ExplainForm {
    #[serde(flatten)]
    image: ImageForm,
    /// Cells per side of the grid; at most 16 and at most the side of the model's input. Default: 8
    #[schema(required = false, minimum = 1, maximum = 16)]
    grid: u32,
}

/// The prediction for an uploaded image
#[derive(Debug, Serialize, ToSchema)]
pub struct Prediction {
    pub model_name: String,
    pub model_version: String,
    /// Names of the predicted classes
    pub predicted: Vec<String>,
    /// All classes, in the order of the model's output
    pub classes: Vec<ClassPrediction>,
    /// The decoded planes, if requested
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImagePreview>,
}

/// Preview of the decoded planes of an image
#[derive(Debug, Serialize, ToSchema)]
pub struct ImagePreview {
    /// Width of the uploaded image in pixels
    pub width: u32,
    /// Height of the uploaded image in pixels
    pub height: u32,
    /// The planes, in the order of the model's stains
    pub planes: Vec<PlanePreview>,
}

/// Preview of one stain
#[derive(Debug, Serialize, ToSchema)]
pub struct PlanePreview {
    pub stain: String,
    /// A gray PNG, base64
    #[schema(content_encoding = "base64", content_media_type = "image/png")]
    pub png: String,
}

/// The prediction for one class
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassPrediction {
    /// Index in the model's output
    pub index: usize,
    pub name: String,
    /// Probability, 0–1
    pub probability: f32,
    /// The class is predicted if its probability is at least the threshold
    pub threshold: f32,
    /// Whether the class is predicted
    pub present: bool,
}

/// A line of an explanation
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ExplanationLine {
    /// The first line
    Start(ExplanationStart),
    /// One line per row of the grid, from the top
    Row(ExplanationRow),
    /// The last line, if the explanation failed
    Error(ErrorBody),
}

/// The prediction for the complete image
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplanationStart {
    pub model_name: String,
    pub model_version: String,
    /// Cells per side of the grid
    pub grid: usize,
    /// Class names, in the order of the model's output
    pub classes: Vec<String>,
    /// Probability of each class
    pub probabilities: Vec<f32>,
}

/// A row of the grid
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplanationRow {
    /// Row index from the top, from 0
    pub row: usize,
    /// For each cell from the left: the decrease of each class's probability if the cell is black.
    /// Negative for an increase
    pub falls: Vec<Vec<f32>>,
}

/// Models, limits and samples of the server
#[derive(Debug, Serialize, ToSchema)]
pub struct ServerInfo {
    /// Version of the server
    #[schema(value_type = String)]
    pub version: &'static str,
    /// The newest version of each loaded model
    pub models: Vec<ModelInfo>,
    pub limits: UploadBounds,
    /// Class names of the synthetic samples, by class number
    #[schema(value_type = Vec<String>)]
    pub samples: Vec<&'static str>,
    /// Stains of the synthetic samples
    #[schema(value_type = Vec<String>)]
    pub sample_stains: Vec<&'static str>,
}

/// A model
#[derive(Debug, Serialize, ToSchema)]
pub struct ModelInfo {
    pub name: String,
    pub version: String,
    /// Network architecture
    pub arch: String,
    /// Stains of an image, in the model's order
    pub stains: Vec<String>,
    /// Side of the model's input in pixels
    pub size: u32,
    /// Classes, in the order of the model's output
    pub classes: Vec<ClassInfo>,
}

/// A class
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassInfo {
    pub name: String,
    /// The class is predicted if its probability is at least the threshold
    pub threshold: f32,
    /// Description, for classes of the Human Protein Atlas
    #[schema(value_type = Option<String>)]
    pub about: Option<&'static str>,
}

/// Limits of an upload
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadBounds {
    /// Maximum size of a request in bytes
    pub max_body: usize,
    /// Maximum side of an image in pixels
    pub max_side: u32,
    /// Maximum size of a file's decoded pixels in bytes
    pub max_pixels: u64,
    /// Maximum side of a preview in pixels
    pub max_shown: u32,
    /// Maximum number of cells per side of an explanation's grid
    pub max_grid: u32,
    /// Maximum processing time of a request in seconds
    pub seconds: f64,
}

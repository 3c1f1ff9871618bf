//! The JSON of `/v1`, for people, scripts and the page.

use serde::Serialize;
use utoipa::ToSchema;

use super::types::ErrorBody;

/// One image: a file for each of the model's stains, or one file with all of them.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only describes")]
pub(super) struct ImageForm {
    /// PNG, JPEG or TIFF of 8 or 16 bits; a colour file stands for its brightest channel.
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    red: String,
    /// As `red`.
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    green: String,
    /// As `red`.
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    blue: String,
    /// As `red`.
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    yellow: String,
    /// In place of these: a TIFF or OME-TIFF file with a channel for each stain.
    #[schema(required = false, format = Binary, content_media_type = "application/octet-stream")]
    image: String,
    /// Which channels of `image` the model's stains are, in their order, with commas between
    /// them: names in its OME-XML, or numbers from 0. The stains' own names if it is missing.
    #[schema(required = false)]
    channels: String,
    /// Which model answers, where there are several.
    #[schema(required = false)]
    model: String,
    /// Which version of it; the newest if it is missing.
    #[schema(required = false)]
    version: String,
}

/// An image to be classified.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only describes")]
pub(super) struct PredictForm {
    #[serde(flatten)]
    image: ImageForm,
    /// Have the planes come back to be looked at, at most so many pixels wide and high.
    #[schema(required = false, minimum = 1, maximum = 1024)]
    planes: u32,
}

/// An image whose classification is to be explained.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it only describes")]
pub(super) struct ExplainForm {
    #[serde(flatten)]
    image: ImageForm,
    /// Cells of a side of the grid, at most 16 and the side of the model's input; 8 if it is
    /// missing.
    #[schema(required = false, minimum = 1, maximum = 16)]
    grid: u32,
}

/// What a model says of an uploaded image.
#[derive(Debug, Serialize, ToSchema)]
pub struct Prediction {
    /// The model that answered.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// The names of the classes that are present.
    pub predicted: Vec<String>,
    /// All classes, in the order of the model's output.
    pub classes: Vec<ClassPrediction>,
    /// The image itself, if it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ShownImage>,
}

/// An image to be looked at.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShownImage {
    /// Width of the uploaded image in pixels.
    pub width: u32,
    /// Its height.
    pub height: u32,
    /// Its planes, in the order of the model's stains.
    pub planes: Vec<ShownPlane>,
}

/// One stain of an image.
#[derive(Debug, Serialize, ToSchema)]
pub struct ShownPlane {
    /// The stain.
    pub stain: String,
    /// A gray PNG, base64.
    #[schema(content_encoding = "base64", content_media_type = "image/png")]
    pub png: String,
}

/// What a model says of one class.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClassPrediction {
    /// Its number in the model's output.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// How probable it is, 0–1.
    pub probability: f32,
    /// From which probability on it is present.
    pub threshold: f32,
    /// Whether it is present.
    pub present: bool,
}

/// A line of an explanation.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum ExplanationLine {
    /// The first.
    Start(ExplanationStart),
    /// One for each row of the grid, from the top.
    Row(ExplanationRow),
    /// The last, if it broke off.
    Broken(ErrorBody),
}

/// What the model says of the whole image.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplanationStart {
    /// The model that answers.
    pub model_name: String,
    /// Its version.
    pub model_version: String,
    /// Cells of a side.
    pub grid: usize,
    /// The classes, in the order of the model's output.
    pub classes: Vec<String>,
    /// How probable each of them is.
    pub probabilities: Vec<f32>,
}

/// A row of the grid.
#[derive(Debug, Serialize, ToSchema)]
pub struct ExplanationRow {
    /// Its number from the top, from 0.
    pub row: usize,
    /// For each cell from the left: how much each class's probability falls where the cell is
    /// black. Below 0 where it rises.
    pub falls: Vec<Vec<f32>>,
}

/// What a server offers to people.
#[derive(Debug, Serialize, ToSchema)]
pub struct About {
    /// The program's version.
    #[schema(value_type = String)]
    pub version: &'static str,
    /// The newest version of each loaded model.
    pub models: Vec<AboutModel>,
    /// What an upload may be.
    pub limits: UploadBounds,
    /// What the synthetic samples show, in the order of their numbers.
    #[schema(value_type = Vec<String>)]
    pub samples: Vec<&'static str>,
    /// The stains that they have.
    #[schema(value_type = Vec<String>)]
    pub sample_stains: Vec<&'static str>,
}

/// A model, for people.
#[derive(Debug, Serialize, ToSchema)]
pub struct AboutModel {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The network.
    pub arch: String,
    /// The stains of which it wants an image each.
    pub stains: Vec<String>,
    /// The side to which images are resized, in pixels.
    pub size: u32,
    /// Its classes, in the order of its output.
    pub classes: Vec<AboutClass>,
}

/// A class, for people.
#[derive(Debug, Serialize, ToSchema)]
pub struct AboutClass {
    /// Its name.
    pub name: String,
    /// From which probability on it is present.
    pub threshold: f32,
    /// What it is, if it is one of the Human Protein Atlas.
    #[schema(value_type = Option<String>)]
    pub about: Option<&'static str>,
}

/// What an upload may be.
#[derive(Debug, Serialize, ToSchema)]
pub struct UploadBounds {
    /// Most bytes of a request.
    pub max_body: usize,
    /// Largest side of an image, in pixels.
    pub max_side: u32,
    /// Most bytes of pixels of a file when it is decoded.
    pub max_pixels: u64,
    /// Largest side of planes that come back, in pixels.
    pub max_shown: u32,
    /// Most cells of a side of an explanation's grid.
    pub max_grid: u32,
    /// Most time of a request, in seconds.
    pub seconds: f64,
}

//! What the Open Inference Protocol wants to know of the server and its models.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Model, PLANES_NAME};
use rgby_score::model_metadata::EMBEDDINGS_NAME;
use rgby_score::{INPUT_NAME, OUTPUT_NAME};

/// The server's name.
pub(super) const NAME: &str = "rgby";
/// Its version.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The protocol's extensions that it has.
pub(super) const EXTENSIONS: [&str; 3] = [
    "binary_tensor_data",
    "model_repository",
    "model_repository(unload_dependents)",
];
/// What kind of file a model is.
pub(super) const PLATFORM: &str = "onnx_onnxv1";

/// What a tensor is.
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorMetadata {
    /// Its name.
    #[schema(value_type = String)]
    pub name: &'static str,
    /// The type of its values.
    #[schema(value_type = String)]
    pub datatype: &'static str,
    /// Its size in each dimension; -1 where that is open.
    pub shape: Vec<i64>,
}

/// The inputs of which a request has one.
pub(super) fn inputs(model: &Model) -> Vec<TensorMetadata> {
    let preprocess = &model.spec().preprocess;
    let (channels, side) = (preprocess.channels.len() as i64, i64::from(preprocess.size));
    let stains = preprocess.stains().len() as i64;
    vec![
        TensorMetadata {
            name: INPUT_NAME,
            datatype: "FP32",
            shape: vec![-1, channels, side, side],
        },
        TensorMetadata {
            name: PLANES_NAME,
            datatype: "UINT8",
            shape: vec![-1, stains, -1, -1],
        },
    ]
}

/// The outputs.
pub(super) fn outputs(model: &Model) -> Vec<TensorMetadata> {
    let spec = model.spec();
    let classes = Some((OUTPUT_NAME, spec.classes.len()));
    let embeddings = spec.embeddings.map(|width| (EMBEDDINGS_NAME, width));
    let tensor = |(name, width): (&'static str, usize)| TensorMetadata {
        name,
        datatype: "FP32",
        shape: vec![-1, width as i64],
    };
    classes.into_iter().chain(embeddings).map(tensor).collect()
}

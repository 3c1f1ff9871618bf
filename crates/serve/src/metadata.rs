//! Server and model metadata of the Open Inference Protocol.

use serde::Serialize;
use utoipa::ToSchema;

use super::{Model, PLANES_NAME};
use rgby_score::model_metadata::EMBEDDINGS_NAME;
use rgby_score::{INPUT_NAME, OUTPUT_NAME};

/// Name of the server.
pub(super) const NAME: &str = "rgby";
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Supported extensions of the protocol.
pub(super) const EXTENSIONS: [&str; 3] = [
    "binary_tensor_data",
    "model_repository",
    "model_repository(unload_dependents)",
];
/// File format of the models, by the protocol's name.
pub(super) const PLATFORM: &str = "onnx_onnxv1";

/// Name, datatype and shape of a tensor
#[derive(Debug, Serialize, ToSchema)]
pub struct TensorMetadata {
    #[schema(value_type = String)]
    pub name: &'static str,
    #[schema(value_type = String)]
    pub datatype: &'static str,
    /// Size of each dimension; -1 for a variable size
    pub shape: Vec<i64>,
}

/// Returns the possible inputs; a request has exactly one of them.
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

/// Returns the outputs of a model.
pub(super) fn outputs(model: &Model) -> Vec<TensorMetadata> {
    let spec = model.spec();
    let probabilities = Some((OUTPUT_NAME, spec.classes.len()));
    let embeddings = spec.embeddings.map(|width| (EMBEDDINGS_NAME, width));
    let tensor = |(name, width): (&'static str, usize)| TensorMetadata {
        name,
        datatype: "FP32",
        shape: vec![-1, width as i64],
    };
    let all = probabilities.into_iter().chain(embeddings);
    all.map(tensor).collect()
}

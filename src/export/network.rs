//! A network as an ONNX model with metadata.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use burn_onnx::export::{AxisSpec, ExportOutput, InputSpec, OnnxExporter};

use super::{ExportError, names, threads};
use crate::graph::{Message, ModelProto, surgery::share_strides};
use crate::model::{CONFIG_KEY, Classifier, ModelConfig};
use crate::model_metadata::{METADATA_KEY, ModelSpec};
use crate::score::{OrtSession, Runtime};

/// The metadata of an exported file.
#[derive(Debug, Clone, Copy)]
pub struct ExportMetadata<'a> {
    /// For retraining.
    pub config: &'a ModelConfig,
    /// For scoring. Decides whether the file has an output of embeddings.
    pub spec: &'a ModelSpec,
}

/// Returns `classifier`, which must not be on an autodiff device, as an ONNX model in float32.
///
/// The input `image` is `[N, C, S, S]` float32, normalised; the output `probabilities` is `[N, K]`.
/// If the spec has [`ModelSpec::embeddings`], the output `embeddings` `[N, F]` holds the pooled
/// features. The dynamic size `N` is called `batch`.
///
/// # Errors
///
/// [`ExportError::Capture`].
pub fn to_onnx(
    classifier: &Classifier,
    metadata: &ExportMetadata,
) -> Result<ModelProto, ExportError> {
    let preprocess = &metadata.spec.preprocess;
    let images = (preprocess.channels.len(), preprocess.size as usize);
    let mut model = if metadata.spec.embeddings.is_some() {
        capture(classifier, images, Classifier::probabilities_and_features)?
    } else {
        capture(classifier, images, Classifier::probabilities)?
    };
    names::rename_values(&mut model, metadata.config);
    write_metadata(&mut model, metadata)?;
    Ok(model)
}

/// Returns the computation of `forward` on images `[N, channels, side, side]` as an ONNX model.
pub(super) fn capture<O: ExportOutput>(
    classifier: &Classifier,
    (channels, side): (usize, usize),
    forward: fn(&Classifier, Tensor<4>) -> O,
) -> Result<ModelProto, ExportError> {
    let sample = |count| Tensor::<4>::zeros([count, channels, side, side], &Device::flex());
    let input = InputSpec::new([
        AxisSpec::Dynamic {
            symbol: "batch".into(),
        },
        AxisSpec::Static,
        AxisSpec::Static,
        AxisSpec::Static,
    ]);
    let onnx = OnnxExporter::new()
        .export_dynamic(classifier, sample(2), sample(3), &[input], forward)
        .map_err(|error| ExportError::Capture(error.to_string()))?;
    let mut model = ModelProto::parse_from_bytes(onnx.as_bytes())
        .map_err(|error| ExportError::Capture(error.to_string()))?;
    share_strides(model.graph.mut_or_insert_default());
    Ok(model)
}

/// Replaces the metadata of `model`.
pub(super) fn write_metadata(
    model: &mut ModelProto,
    metadata: &ExportMetadata,
) -> Result<(), ExportError> {
    let failed = |error: serde_json::Error| ExportError::Capture(error.to_string());
    let entries = [
        (
            METADATA_KEY,
            serde_json::to_string(metadata.spec).map_err(failed)?,
        ),
        (
            CONFIG_KEY,
            serde_json::to_string(metadata.config).map_err(failed)?,
        ),
    ];
    model.producer_name = "rgby".into();
    model.producer_version = env!("CARGO_PKG_VERSION").into();
    model.metadata_props.clear();
    for (index, (key, value)) in entries.into_iter().enumerate() {
        // The type of an entry has no public name; `default` infers it from the field.
        model.metadata_props.push(<_>::default());
        model.metadata_props[index].key = key.into();
        model.metadata_props[index].value = value;
    }
    Ok(())
}

/// Opens a session on a model in memory; `what` names it in errors.
pub(super) fn open_session(
    model: &ModelProto,
    what: &Path,
    runtime: Runtime,
) -> Result<OrtSession, ExportError> {
    let bytes = to_bytes(model)?;
    Ok(OrtSession::load(runtime, &bytes, what, threads())?)
}

pub(super) fn to_bytes(model: &ModelProto) -> Result<Vec<u8>, ExportError> {
    let bytes = model.write_to_bytes();
    bytes.map_err(|error| ExportError::Capture(error.to_string()))
}

//! From a checkpoint to one ONNX file that carries all it needs.

mod features;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use burn_onnx::export::{AxisSpec, InputSpec, OnnxExporter};

use crate::fsx;
use crate::graph::{Message, ModelProto, surgery::share_strides};
use crate::model::{CONFIG_KEY, Classifier, ModelConfig};
use crate::score::{Engine, EngineError, INPUT_NAME, ModelFile, OUTPUT_NAME, OrtEngine, Runtime};
use crate::spec::{METADATA_KEY, ModelSpec};

pub use features::OrtExtractor;

/// Largest accepted difference between the engine's probabilities and Burn's.
pub const TOLERANCE: f32 = 1e-4;
/// Samples in the self-check.
const CHECK_BATCH: usize = 2;

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Burn could not describe the network.
    #[error("the network could not be exported: {0}")]
    Capture(String),
    /// The file cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The serving engine refuses the file.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The serving engine computes something else.
    #[error(
        "the exported model differs from Burn by {difference:.1e}, more than {TOLERANCE:.0e}; \
         the file was not written, please report this"
    )]
    Parity {
        /// Largest difference of a probability.
        difference: f32,
    },
}

/// What an exported file says about its network.
#[derive(Debug, Clone, Copy)]
pub struct Description<'a> {
    /// For whoever retrains it.
    pub config: &'a ModelConfig,
    /// For whoever scores with it.
    pub spec: &'a ModelSpec,
}

/// Writes `classifier`, which must not be on an autodiff device, as an ONNX model.
///
/// Input `image` `[N, C, S, S]` float32, normalised; output `probabilities` `[N, K]`. The
/// symbolic `N` is called `batch`.
///
/// # Errors
///
/// [`ExportError::Capture`].
pub fn to_onnx(
    classifier: &Classifier,
    description: &Description,
) -> Result<ModelProto, ExportError> {
    let preprocess = &description.spec.preprocess;
    let images = (preprocess.channels.len(), preprocess.size as usize);
    let mut model = capture(classifier, images, Classifier::probabilities)?;
    rename_values(&mut model, description.config);
    describe(&mut model, description)?;
    Ok(model)
}

/// What `forward` computes of images `[N, channels, side, side]`, as an ONNX model.
fn capture(
    classifier: &Classifier,
    (channels, side): (usize, usize),
    forward: fn(&Classifier, Tensor<4>) -> Tensor<2>,
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

/// Exports to `path` after the serving engine has agreed with Burn on the same input.
///
/// Returns the largest difference of a probability.
///
/// # Errors
///
/// [`ExportError`]; nothing is left at `path` that was not there before.
pub fn export(
    classifier: &Classifier,
    reference: &Classifier,
    description: &Description,
    path: &Path,
    runtime: Runtime,
) -> Result<f32, ExportError> {
    let spec = description.spec;
    let io_error = |source| ExportError::Io {
        path: path.display().to_string(),
        source,
    };
    let bytes = to_onnx(classifier, description)?
        .write_to_bytes()
        .map_err(|error| ExportError::Capture(error.to_string()))?;
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let staged = tempfile::Builder::new()
        .suffix(".onnx")
        .tempfile_in(parent)
        .map_err(io_error)?;
    std::fs::write(staged.path(), &bytes).map_err(io_error)?;
    let difference = difference(reference, spec, staged.path(), runtime)?;
    if difference > TOLERANCE {
        return Err(ExportError::Parity { difference });
    }
    fsx::write_atomic(path, &bytes).map_err(io_error)?;
    Ok(difference)
}

/// Largest difference of a probability between Burn and the engine on one made-up batch.
fn difference(
    reference: &Classifier,
    spec: &ModelSpec,
    path: &Path,
    runtime: Runtime,
) -> Result<f32, ExportError> {
    let size = spec.preprocess.size as usize;
    let shape = [CHECK_BATCH, spec.preprocess.channels.len(), size, size];
    let count = shape.iter().product();
    // Every value from −1 to 1, in an order without a period that matches the image's rows.
    let images: Vec<f32> = (0..count)
        .map(|i: usize| ((i * 7919 % 65_521) as f32 / 32_760.5) - 1.0)
        .collect();
    let input = Tensor::from_data(TensorData::new(images.clone(), shape), &Device::flex());
    let burn = reference.probabilities(input).into_data();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut engine = OrtEngine::load(runtime, &ModelFile::open(path)?, threads)?;
    let served = engine.run(&images, CHECK_BATCH)?;
    Ok(burn.iter::<f32>().zip(served).fold(0.0, |largest, (a, b)| {
        let gap = (a - b).abs();
        if gap.is_nan() {
            f32::INFINITY
        } else {
            largest.max(gap)
        }
    }))
}

/// Gives inputs, outputs and backbone weights the names that people know.
fn rename_values(model: &mut ModelProto, config: &ModelConfig) {
    let graph = model.graph.mut_or_insert_default();
    let imported = config.arch.imported();
    let mut names: std::collections::HashMap<String, String> = imported
        .into_iter()
        .flat_map(|network| network.weights)
        .map(|&(path, initializer)| (path.to_owned(), format!("backbone.{initializer}")))
        .collect();
    names.extend(
        graph
            .input
            .first()
            .map(|input| (input.name.clone(), INPUT_NAME.to_owned())),
    );
    names.extend(
        graph
            .output
            .first()
            .map(|output| (output.name.clone(), OUTPUT_NAME.to_owned())),
    );
    // Burn's path is `backbone.<variant>.<path>`; the variant is no part of a name.
    let variant = format!("{:?}.", config.arch);
    let rename = |name: &mut String| {
        let path = name.strip_prefix("backbone.");
        let path = path.map(|path| path.strip_prefix(&variant).unwrap_or(path));
        if let Some(known) = names.get(path.unwrap_or(name)) {
            known.clone_into(name);
        } else if let Some(path) = path {
            *name = format!("backbone.{path}");
        }
    };
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        rename(&mut value.name);
    }
    for tensor in &mut graph.initializer {
        rename(&mut tensor.name);
    }
    for node in &mut graph.node {
        node.input
            .iter_mut()
            .chain(&mut node.output)
            .for_each(rename);
    }
}

fn describe(model: &mut ModelProto, description: &Description) -> Result<(), ExportError> {
    let failed = |error: serde_json::Error| ExportError::Capture(error.to_string());
    let entries = [
        (
            METADATA_KEY,
            serde_json::to_string(description.spec).map_err(failed)?,
        ),
        (
            CONFIG_KEY,
            serde_json::to_string(description.config).map_err(failed)?,
        ),
    ];
    model.producer_name = "rgby".into();
    model.producer_version = env!("CARGO_PKG_VERSION").into();
    model.metadata_props.clear();
    for (index, (key, value)) in entries.into_iter().enumerate() {
        // The entry's type has no public name; its default is reached through the field.
        model.metadata_props.push(<_>::default());
        model.metadata_props[index].key = key.into();
        model.metadata_props[index].value = value;
    }
    Ok(())
}

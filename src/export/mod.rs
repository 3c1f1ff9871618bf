//! From a checkpoint to one ONNX file that carries all it needs.
//!
//! [`to_onnx`] writes the network down; [`export`] has the serving engine agree with Burn, makes the
//! precision that was asked for, compares it with float32, and writes the file.

mod burn_engine;
mod compare;
mod error;
mod features;
mod inputs;
mod names;
mod reduce;

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};
use burn_onnx::export::{AxisSpec, ExportOutput, InputSpec, OnnxExporter};

use crate::atomic_file;
use crate::data::LabelTable;
use crate::graph::{self, Message, ModelProto, surgery::share_strides};
use crate::model::{CONFIG_KEY, Classifier, ModelConfig};
use crate::model_metadata::{METADATA_KEY, ModelSpec, Precision};
use crate::score::{Engine, ModelFile, OrtEngine, OrtSession, Runtime};

pub use burn_engine::BurnEngine;
pub use compare::PrecisionComparison;
pub use error::ExportError;
pub use features::OrtExtractor;
pub use inputs::Inputs;

/// Largest accepted difference between the engine's probabilities and Burn's.
pub const TOLERANCE: f32 = 1e-4;
/// Largest accepted difference between the probabilities in float16 and in float32. The most that
/// rounding alone made was 1.1e-2, in a network of 244 layers with a steep head; see
/// docs/performance.md.
const FP16_TOLERANCE: f32 = 3e-2;
/// Largest accepted share of decisions that 8 bits turn over with a probability moved by more than
/// 0.1; beyond it the calibration was wrong, not coarse.
const INT8_LOST: f64 = 0.05;
/// Samples in the self-check.
const CHECK_BATCH: usize = 2;

/// What an exported file says about its network.
#[derive(Debug, Clone, Copy)]
pub struct ExportMetadata<'a> {
    /// For whoever retrains it.
    pub config: &'a ModelConfig,
    /// For whoever scores with it.
    pub spec: &'a ModelSpec,
}

/// What is to be made.
pub struct ExportRequest<'a> {
    /// What the file says about its network. Its spec decides whether there are embeddings.
    pub description: ExportMetadata<'a>,
    /// In what it computes.
    pub precision: Precision,
    /// What lower precisions are calibrated on and compared on.
    pub inputs: Inputs,
    /// The classes of some of them.
    pub labels: Option<LabelTable>,
    /// Where the file goes.
    pub path: &'a Path,
}

/// What was made.
#[derive(Debug)]
pub struct ExportReport {
    /// Largest difference between Burn's probabilities and the engine's in float32.
    pub difference: f32,
    /// Bytes of the float32 model and of the file.
    pub bytes: [usize; 2],
    /// For a lower precision: how it was made, and how it compares with float32.
    pub reduced: Option<(String, PrecisionComparison)>,
}

/// Writes `classifier`, which must not be on an autodiff device, as an ONNX model in float32.
///
/// Input `image` `[N, C, S, S]` float32, normalised; output `probabilities` `[N, K]`, and, if the
/// spec has [`ModelSpec::embeddings`], `embeddings` `[N, F]`: the pooled features. The symbolic `N`
/// is called `batch`.
///
/// # Errors
///
/// [`ExportError::Capture`].
pub fn to_onnx(
    classifier: &Classifier,
    description: &ExportMetadata,
) -> Result<ModelProto, ExportError> {
    let preprocess = &description.spec.preprocess;
    let images = (preprocess.channels.len(), preprocess.size as usize);
    let mut model = if description.spec.embeddings.is_some() {
        capture(classifier, images, Classifier::probabilities_and_features)?
    } else {
        capture(classifier, images, Classifier::probabilities)?
    };
    names::rename_values(&mut model, description.config);
    describe(&mut model, description)?;
    Ok(model)
}

/// What `forward` computes of images `[N, channels, side, side]`, as an ONNX model.
fn capture<O: ExportOutput>(
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

/// Exports after the serving engine has agreed with Burn on the same input, and in a lower
/// precision with float32.
///
/// `reference` is the same network as `classifier`, which capturing leaves unusable.
///
/// # Errors
///
/// [`ExportError`]; nothing is left at the order's path that was not there before.
pub fn export(
    classifier: &Classifier,
    reference: &Classifier,
    order: &ExportRequest,
    runtime: Runtime,
) -> Result<ExportReport, ExportError> {
    if runtime.is_tract() && !order.precision.is_full() {
        return Err(ExportError::NeedsOnnxRuntime {
            precision: order.precision,
            runs: runtime.describe(),
        });
    }
    let full = to_onnx(classifier, &order.description)?;
    let staged = Staged::new(&full, order.path)?;
    let difference = difference(reference, &staged.file, runtime)?;
    if difference > TOLERANCE {
        return Err(ExportError::Parity { difference });
    }
    let (reduced, summary) = match order.precision {
        Precision::Fp32 => {
            staged.keep(order.path)?;
            let bytes = [staged.bytes.len(); 2];
            return Ok(ExportReport {
                difference,
                bytes,
                reduced: None,
            });
        }
        Precision::Fp16 => reduce::to_fp16(&full)?,
        Precision::Int8 => reduce::to_int8(&full, &order.inputs, runtime)?,
    };
    drop(full);
    let reduced = Staged::new(&order.described(reduced)?, order.path)?;
    let models = [&staged.file, &reduced.file];
    let comparison = compare::compare(models, &order.inputs, order.labels.as_ref(), runtime)?;
    accept(order.precision, &comparison)?;
    reduced.keep(order.path)?;
    Ok(ExportReport {
        difference,
        bytes: [staged.bytes.len(), reduced.bytes.len()],
        reduced: Some((summary, comparison)),
    })
}

impl ExportRequest<'_> {
    /// The model with its precision in its metadata.
    fn described(&self, mut model: ModelProto) -> Result<ModelProto, ExportError> {
        let spec = ModelSpec {
            precision: self.precision,
            ..self.description.spec.clone()
        };
        let description = ExportMetadata {
            spec: &spec,
            ..self.description
        };
        describe(&mut model, &description)?;
        Ok(model)
    }
}

/// Writes the exported model `from` to `to` with another spec; its graph and weights stay.
///
/// # Errors
///
/// [`ExportError`] if it cannot be read or written, or does not fit the spec.
pub fn replace_spec(from: &Path, spec: &ModelSpec, to: &Path) -> Result<(), ExportError> {
    let mut model = graph::read(from)?;
    let text = serde_json::to_string(spec).map_err(|e| ExportError::Capture(e.to_string()))?;
    let entries = model.metadata_props.iter_mut();
    for entry in entries.filter(|entry| entry.key == METADATA_KEY) {
        entry.value.clone_from(&text);
    }
    Staged::new(&model, to)?.keep(to)
}

/// Refuses a change that is more than rounding.
fn accept(precision: Precision, change: &PrecisionComparison) -> Result<(), ExportError> {
    match precision {
        Precision::Fp16 if change.largest > FP16_TOLERANCE => Err(ExportError::Rounded {
            difference: change.largest,
        }),
        Precision::Int8 if change.lost > INT8_LOST => {
            Err(ExportError::Drifted { lost: change.lost })
        }
        _ => Ok(()),
    }
}

/// A model in a file beside the one that is to be written.
struct Staged {
    bytes: Vec<u8>,
    file: ModelFile,
    /// Goes with this.
    _temporary: tempfile::NamedTempFile,
}

impl Staged {
    fn new(model: &ModelProto, path: &Path) -> Result<Self, ExportError> {
        let bytes = to_bytes(model)?;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let temporary = tempfile::Builder::new()
            .suffix(".onnx")
            .tempfile_in(parent.unwrap_or(Path::new(".")))
            .map_err(io_error(path))?;
        std::fs::write(temporary.path(), &bytes).map_err(io_error(path))?;
        Ok(Self {
            file: ModelFile::open(temporary.path())?,
            bytes,
            _temporary: temporary,
        })
    }

    fn keep(&self, path: &Path) -> Result<(), ExportError> {
        atomic_file::write_atomic(path, &self.bytes).map_err(io_error(path))
    }
}

/// A session on a model that is in no file; errors call it `what`.
fn open_session(
    model: &ModelProto,
    what: &Path,
    runtime: Runtime,
) -> Result<OrtSession, ExportError> {
    let bytes = to_bytes(model)?;
    Ok(OrtSession::load(runtime, &bytes, what, threads())?)
}

fn to_bytes(model: &ModelProto) -> Result<Vec<u8>, ExportError> {
    let bytes = model.write_to_bytes();
    bytes.map_err(|error| ExportError::Capture(error.to_string()))
}

/// One for each core.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> ExportError {
    let path = path.display().to_string();
    move |source| ExportError::Io {
        path: path.clone(),
        source,
    }
}

/// Largest difference of a probability between Burn and the engine on one made-up batch.
fn difference(
    reference: &Classifier,
    file: &ModelFile,
    runtime: Runtime,
) -> Result<f32, ExportError> {
    let preprocess = &file.spec().preprocess;
    let size = preprocess.size as usize;
    let shape = [CHECK_BATCH, preprocess.channels.len(), size, size];
    let images = inputs::made_up(0, shape.iter().product());
    let input = Tensor::from_data(TensorData::new(images.clone(), shape), &Device::flex());
    let burn = reference.probabilities(input).into_data();
    let mut engine = OrtEngine::load(runtime, file, threads())?;
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

fn describe(model: &mut ModelProto, description: &ExportMetadata) -> Result<(), ExportError> {
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

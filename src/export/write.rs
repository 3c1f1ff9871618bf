//! Exports a network, verifies it in the inference engine and reduces its precision.

use std::path::Path;

use burn::tensor::{Device, Tensor, TensorData};

use super::network::{ExportMetadata, to_bytes, to_onnx, write_metadata};
use super::{
    CalibrationInputs, ExportError, FP16_TOLERANCE, INT8_LOST, PrecisionComparison, TOLERANCE,
    compare, inputs, reduce, threads,
};
use crate::atomic_file;
use crate::data::LabelTable;
use crate::graph::ModelProto;
use crate::model::Classifier;
use crate::model_metadata::{ModelSpec, Precision};
use crate::score::{Engine, ModelFile, OrtEngine, Runtime};

/// Number of samples in the comparison with Burn.
const CHECK_BATCH: usize = 2;

/// A model to write.
pub(super) struct ModelRequest<'a> {
    pub metadata: ExportMetadata<'a>,
    pub precision: Precision,
    /// Inputs for calibrating and comparing lower precisions.
    pub inputs: &'a CalibrationInputs<'a>,
    /// Labels of some of the inputs.
    pub labels: Option<LabelTable>,
    pub path: &'a Path,
}

/// A model that was written.
#[derive(Debug)]
pub(super) struct WrittenModel {
    /// Largest difference between the probabilities of Burn and of the engine in float32.
    pub difference: f32,
    /// Size in bytes of the float32 model and of the file.
    pub bytes: [usize; 2],
    /// For a lower precision: what was rewritten, and the comparison with float32.
    pub reduced: Option<(String, PrecisionComparison)>,
}

/// Writes a network as an ONNX file.
///
/// First compares the engine with Burn on the same input, and a lower precision with float32.
/// `reference` is a second copy of `classifier`, because exporting leaves `classifier` unusable.
///
/// # Errors
///
/// [`ExportError`]; then the file is unchanged.
pub(super) fn write_model(
    classifier: &Classifier,
    reference: &Classifier,
    request: &ModelRequest,
    runtime: Runtime,
) -> Result<WrittenModel, ExportError> {
    if runtime.is_tract() && !request.precision.is_full() {
        return Err(ExportError::SlowEngine {
            precision: request.precision,
            engine: runtime.describe(),
        });
    }
    let full = to_onnx(classifier, &request.metadata)?;
    let full_file = TemporaryModel::new(&full, request.path)?;
    let difference = difference(reference, &full_file.file, runtime)?;
    if difference > TOLERANCE {
        return Err(ExportError::Parity { difference });
    }
    let (reduced, summary) = match request.precision {
        Precision::Fp32 => {
            full_file.write(request.path)?;
            let bytes = [full_file.bytes.len(); 2];
            return Ok(WrittenModel {
                difference,
                bytes,
                reduced: None,
            });
        }
        Precision::Fp16 => reduce::to_fp16(&full)?,
        Precision::Int8 => reduce::to_int8(&full, request.inputs, runtime)?,
    };
    drop(full);
    let reduced = TemporaryModel::new(&request.with_precision(reduced)?, request.path)?;
    let models = [&full_file.file, &reduced.file];
    let comparison = compare::compare(models, request.inputs, request.labels.as_ref(), runtime)?;
    accept(request.precision, &comparison)?;
    reduced.write(request.path)?;
    Ok(WrittenModel {
        difference,
        bytes: [full_file.bytes.len(), reduced.bytes.len()],
        reduced: Some((summary, comparison)),
    })
}

impl ModelRequest<'_> {
    /// Writes the precision into the metadata of `model`.
    fn with_precision(&self, mut model: ModelProto) -> Result<ModelProto, ExportError> {
        let spec = ModelSpec {
            precision: self.precision,
            ..self.metadata.spec.clone()
        };
        let metadata = ExportMetadata {
            spec: &spec,
            ..self.metadata
        };
        write_metadata(&mut model, &metadata)?;
        Ok(model)
    }
}

/// Fails if a lower precision changes more than rounding explains.
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

/// A model in a temporary file next to the output file.
pub(super) struct TemporaryModel {
    bytes: Vec<u8>,
    file: ModelFile,
    /// Deletes the file when dropped.
    _temporary: tempfile::NamedTempFile,
}

impl TemporaryModel {
    pub fn new(model: &ModelProto, path: &Path) -> Result<Self, ExportError> {
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

    pub fn write(&self, path: &Path) -> Result<(), ExportError> {
        atomic_file::write_atomic(path, &self.bytes).map_err(io_error(path))
    }
}

fn io_error(path: &Path) -> impl Fn(std::io::Error) -> ExportError {
    let path = path.display().to_string();
    move |cause| ExportError::Io {
        path: path.clone(),
        cause,
    }
}

/// Returns the largest difference of a probability between Burn and the engine on a synthetic batch.
fn difference(
    reference: &Classifier,
    file: &ModelFile,
    runtime: Runtime,
) -> Result<f32, ExportError> {
    let preprocess = &file.spec().preprocess;
    let size = preprocess.size as usize;
    let shape = [CHECK_BATCH, preprocess.channels.len(), size, size];
    let images = inputs::synthetic(0, shape.iter().product());
    let input = Tensor::from_data(TensorData::new(images.clone(), shape), &Device::flex());
    let burn = reference.probabilities(input).into_data();
    let mut engine = OrtEngine::load(runtime, file, threads())?;
    let inferred = engine.run(&images, CHECK_BATCH)?;
    Ok(burn
        .iter::<f32>()
        .zip(inferred)
        .fold(0.0, |largest, (a, b)| {
            let gap = (a - b).abs();
            if gap.is_nan() {
                f32::INFINITY
            } else {
                largest.max(gap)
            }
        }))
}

//! Exports a checkpoint as one ONNX file that contains everything for scoring.
//!
//! [`export()`] verifies that the inference engine agrees with Burn, reduces the precision if
//! requested, compares it with float32 and writes the file. [`to_onnx`] is the export alone.

mod burn_engine;
mod compare;
mod error;
mod feature_device;
mod features;
mod inputs;
mod names;
mod network;
mod reduce;
mod report;
mod write;

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use self::write::{ModelRequest, TemporaryModel, write_model};
use crate::data::read_labels;
use crate::graph;
use crate::imaging::find_samples;
use crate::model::{Classifier, WeightTransfer};
use crate::model_metadata::{METADATA_KEY, ModelSpec, Precision, ThresholdFile};
use crate::observer::Observer;
use crate::score::{EngineChoice, ModelFile, Runtime, RuntimeOptions};
use crate::train::{Checkpoint, resolve};

pub use burn_engine::BurnEngine;
pub use compare::PrecisionComparison;
pub use error::ExportError;
pub use feature_device::FeatureDevice;
pub use features::OrtExtractor;
pub use inputs::CalibrationInputs;
pub use network::{ExportMetadata, to_onnx};
pub use report::{ExportReport, ExportedModel, PrecisionReport};

/// Largest accepted difference between the probabilities of the engine and of Burn.
pub const TOLERANCE: f32 = 1e-4;
/// Largest accepted difference between the probabilities in float16 and in float32. The largest
/// that was caused by rounding alone was 1.1e-2, in a network of 244 layers with a steep head; see
/// docs/performance.md.
const FP16_TOLERANCE: f32 = 3e-2;
/// Largest accepted fraction of decisions that int8 changes with a probability moved by more than
/// 0.1. A larger fraction means wrong calibration, not rounding.
const INT8_LOST: f64 = 0.05;

/// What to export.
#[derive(Debug, Clone)]
pub struct ExportConfig {
    /// A checkpoint directory, or a run directory (its best checkpoint). With new thresholds also an
    /// exported file.
    pub from: PathBuf,
    /// The ONNX file to write.
    pub out: PathBuf,
    /// File of tuned thresholds; the checkpoint's thresholds if absent.
    pub thresholds: Option<PathBuf>,
    pub precision: Precision,
    /// Folder of images for calibrating and comparing lower precisions; required for int8.
    pub calibrate: Option<PathBuf>,
    /// CSV with labels of these images, for comparing macro-F1.
    pub labels: Option<PathBuf>,
    /// Whether the file gets an output of embeddings.
    pub embeddings: bool,
    /// The engine that verifies the file.
    pub engine: EngineChoice,
    /// Path of the ONNX Runtime library; searched for if absent.
    pub ort_lib: Option<PathBuf>,
}

/// Exports a checkpoint, or replaces the thresholds of an exported file.
///
/// Calibration images that cannot be read are reported as warnings and left out.
///
/// # Errors
///
/// [`ExportError`] if the checkpoint does not load, the engines disagree, a lower precision changes
/// too much, or the file cannot be written; then the file is unchanged.
pub fn export(config: &ExportConfig, observer: &dyn Observer) -> Result<ExportReport, ExportError> {
    config.validate()?;
    if config.from.is_file() {
        return config.replace_thresholds(observer);
    }
    let dir = resolve(&config.from)?;
    let checkpoint = Checkpoint::open(&dir)?;
    let mut spec = checkpoint.spec.clone();
    config.set_thresholds(&mut spec, observer)?;
    spec.embeddings = config.embeddings.then(|| checkpoint.model.pooled_width());
    let runtime = Runtime::start(&RuntimeOptions {
        engine: config.engine,
        ort_lib: config.ort_lib.clone(),
        ..RuntimeOptions::default()
    })?;
    if let Some(notice) = runtime.notice() {
        observer.note(notice);
    }
    let classes = spec.classes.len();
    let labels = config.labels.as_deref();
    let inputs = config.inputs(&spec, observer)?;
    let request = ModelRequest {
        metadata: ExportMetadata {
            config: &checkpoint.model,
            spec: &spec,
        },
        precision: config.precision,
        inputs: &inputs,
        labels: labels.map(|csv| read_labels(csv, classes)).transpose()?,
        path: &config.out,
    };
    // Exporting leaves a network unusable, so the comparison gets its own copy.
    let load = || {
        let new = Classifier::new(&checkpoint.model, 0, &Device::flex());
        Checkpoint::load(&dir, new, WeightTransfer::All)
    };
    let written = write_model(&load()?, &load()?, &request, runtime)?;
    let images = inputs.len();
    let synthetic_inputs = inputs.are_synthetic();
    let report = ExportedModel {
        from: dir,
        out: config.out.clone(),
        precision: config.precision,
        embeddings: spec.embeddings,
        difference: written.difference,
        engine: runtime.describe(),
        bytes: written.bytes[1],
        reduced: written
            .reduced
            .map(|(summary, comparison)| PrecisionReport {
                summary,
                comparison,
                synthetic_inputs,
                fp32_bytes: written.bytes[0],
            }),
    };
    report.warn_of_failures(images, observer);
    Ok(ExportReport::Model(Box::new(report)))
}

impl ExportConfig {
    fn validate(&self) -> Result<(), ExportError> {
        let reason = if self.out.is_dir() {
            format!(
                "{} is a folder\nhint: --out names the file to write",
                self.out.display()
            )
        } else if self.calibrate.is_some() && self.precision.is_full() {
            "--calibrate is for --precision int8 and fp16, which are compared with fp32".into()
        } else if self.calibrate.is_none() && self.precision == Precision::Int8 {
            "--precision int8 needs images for calibration\nhint: pass a folder of about a hundred \
             typical images with --calibrate DIR"
                .into()
        } else {
            return Ok(());
        };
        Err(ExportError::Config(reason))
    }

    /// Sets the thresholds of the file [`thresholds`](Self::thresholds) in `spec`.
    fn set_thresholds(
        &self,
        spec: &mut ModelSpec,
        observer: &dyn Observer,
    ) -> Result<(), ExportError> {
        let Some(path) = &self.thresholds else {
            return Ok(());
        };
        let file = ThresholdFile::read(path)?;
        spec.thresholds = file.for_classes(&spec.classes, path)?;
        observer.note(&format!(
            "thresholds  {}, tuned on {} samples (--tune-thresholds {})",
            path.display(),
            file.samples,
            file.method
        ));
        if file.keep_argmax {
            observer.note(
                "            tuned for decisions that always keep the most probable class: score with \
                 --keep-argmax",
            );
        }
        Ok(())
    }

    /// Copies an exported file with other thresholds; graph and weights stay the same.
    fn replace_thresholds(&self, observer: &dyn Observer) -> Result<ExportReport, ExportError> {
        let from = self.from.display();
        if self.thresholds.is_none() {
            return Err(ExportError::Config(format!(
                "--from {from} is an exported file\nhint: pass a checkpoint or run, or new \
                 thresholds for the file with --thresholds"
            )));
        }
        if !self.precision.is_full() || self.embeddings {
            return Err(ExportError::Config(format!(
                "--from {from} is an exported file, of which only the thresholds can be \
                 replaced\nhint: for --precision or --with-embeddings pass its checkpoint or run"
            )));
        }
        let mut spec = ModelFile::open(&self.from)?.spec().as_ref().clone();
        self.set_thresholds(&mut spec, observer)?;
        replace_spec(&self.from, &spec, &self.out)?;
        Ok(ExportReport::Thresholds {
            from: self.from.clone(),
            out: self.out.clone(),
            thresholds: spec.thresholds,
        })
    }

    fn inputs<'a>(
        &self,
        spec: &ModelSpec,
        observer: &'a dyn Observer,
    ) -> Result<CalibrationInputs<'a>, ExportError> {
        let preprocess = spec.preprocess.clone();
        let Some(dir) = &self.calibrate else {
            return Ok(CalibrationInputs::synthetic(preprocess));
        };
        let samples = find_samples(dir, &preprocess.stains());
        let samples = samples.map_err(|error| ExportError::Images(error.to_string()))?;
        observer.progress(inputs::TASK, 0, samples.len());
        Ok(CalibrationInputs::from_samples(
            samples, preprocess, observer,
        ))
    }
}

/// Writes the exported model `from` to `to` with another spec; graph and weights stay the same.
///
/// # Errors
///
/// [`ExportError`] if it cannot be read or written, or does not match the spec.
pub fn replace_spec(from: &Path, spec: &ModelSpec, to: &Path) -> Result<(), ExportError> {
    let mut model = graph::read(from)?;
    let text = serde_json::to_string(spec).map_err(|e| ExportError::Capture(e.to_string()))?;
    let entries = model.metadata_props.iter_mut();
    for entry in entries.filter(|entry| entry.key == METADATA_KEY) {
        entry.value.clone_from(&text);
    }
    TemporaryModel::new(&model, to)?.write(to)
}

/// Returns the number of threads for inference: one per core.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

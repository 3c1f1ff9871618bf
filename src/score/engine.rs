//! The small trait between an inference engine and its users, and its one implementation on `ort`.

use std::path::PathBuf;
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;

use super::{EngineError, INPUT_NAME, ModelFile, OUTPUT_NAME, Runtime};
use crate::spec::ModelSpec;

/// Something that turns batches of images into probabilities. One worker owns one engine.
pub trait Engine: Send {
    /// What the model is and wants.
    fn spec(&self) -> &ModelSpec;

    /// Probabilities `[batch, classes]`, 0–1, row by row, of `images` `[batch, C, H, W]` float32,
    /// preprocessed as [`spec`](Self::spec) says.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`] if `images` has another length, the engine fails, or its answer is
    /// not `batch × classes` probabilities.
    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>, EngineError>;

    /// Number of classes: the length of one row of probabilities.
    fn num_classes(&self) -> usize {
        self.spec().classes.len()
    }
}

/// One session of the engine that [`Runtime`] started.
#[derive(Debug)]
pub struct OrtEngine {
    session: Session,
    spec: Arc<ModelSpec>,
    path: PathBuf,
}

impl OrtEngine {
    /// Loads `model` into a session on `runtime`'s device; ONNX Runtime works on a batch with
    /// `intra_threads` threads, tract with one.
    ///
    /// # Errors
    ///
    /// [`EngineError::Device`] if the device cannot be had, [`EngineError::Model`] if the engine
    /// cannot load the model.
    pub fn load(
        runtime: Runtime,
        model: &ModelFile,
        intra_threads: usize,
    ) -> Result<Self, EngineError> {
        let model_error = |e: ort::Error| EngineError::Model {
            path: model.path().to_owned(),
            reason: format!("{} cannot load it: {e}", runtime.describe()),
        };
        let mut builder = session_builder(runtime, intra_threads).map_err(model_error)?;
        for provider in runtime.providers() {
            provider
                .register(&mut builder)
                .map_err(|e| runtime.device_error(e))?;
        }
        let session = builder
            .commit_from_memory(model.bytes())
            .map_err(model_error)?;
        Ok(Self {
            session,
            spec: model.spec().clone(),
            path: model.path().to_owned(),
        })
    }

    /// Loads as many sessions of `model` as [`Runtime::workers`] advises for `threads` processor
    /// threads.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_all(
        runtime: Runtime,
        model: &ModelFile,
        threads: usize,
    ) -> Result<Vec<Box<dyn Engine>>, EngineError> {
        let workers = runtime.workers(threads);
        let load = |_| Self::load(runtime, model, workers.intra_threads);
        (0..workers.engines)
            .map(|i| Ok(Box::new(load(i)?) as Box<dyn Engine>))
            .collect()
    }

    fn infer(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>, String> {
        let (channels, side) = (
            self.spec.preprocess.channels.len(),
            self.spec.preprocess.size,
        );
        let shape = [batch, channels, side as usize, side as usize];
        let wanted: usize = shape.iter().product();
        if wanted != images.len() || batch == 0 {
            return Err(format!(
                "{} values were given for an input of {shape:?}",
                images.len()
            ));
        }
        let input = TensorRef::from_array_view((shape, images)).map_err(|e| e.to_string())?;
        let outputs = self.session.run(ort::inputs![INPUT_NAME => input]);
        let outputs = outputs.map_err(|e| e.to_string())?;
        let output = outputs.get(OUTPUT_NAME).ok_or("the output is not there")?;
        let (shape, values) = output
            .try_extract_tensor::<f32>()
            .map_err(|e| e.to_string())?;
        let classes = self.spec.classes.len();
        if !shape.iter().map(|size| *size as usize).eq([batch, classes]) {
            return Err(format!("the output is {shape:?} for [{batch}, {classes}]"));
        }
        // The range catches NaN too.
        if let Some(at) = values.iter().position(|p| !(0.0..=1.0).contains(p)) {
            let (value, class) = (values[at], &self.spec.classes[at % classes]);
            return Err(format!(
                "{value} for class `{class}` is not a probability: its weights may be damaged, \
                 or it was not written by `rgby export`"
            ));
        }
        Ok(values.to_vec())
    }
}

impl Engine for OrtEngine {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>, EngineError> {
        self.infer(images, batch)
            .map_err(|reason| EngineError::Run {
                path: self.path.clone(),
                reason,
            })
    }
}

fn session_builder(runtime: Runtime, intra_threads: usize) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(runtime.environment())?
        .with_optimization_level(GraphOptimizationLevel::All)?;
    if runtime.is_tract() {
        return Ok(builder);
    }
    // Resting threads leave the processor to the image decoders.
    Ok(builder
        .with_intra_threads(intra_threads.max(1))?
        .with_intra_op_spinning(false)?)
}

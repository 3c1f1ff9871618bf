//! The small trait between an inference engine and its users, and its one implementation on `ort`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;

use super::{EngineError, ModelFile, OUTPUT_NAME, Runtime};
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

/// A graph of one input in a session of the engine that [`Runtime`] started.
#[derive(Debug)]
pub struct OrtSession(Session);

impl OrtSession {
    /// Loads an ONNX file's `bytes`; `what` stands for it in errors. ONNX Runtime works on a batch
    /// with `intra_threads` threads, tract with one.
    ///
    /// # Errors
    ///
    /// [`EngineError::Device`] if the device cannot be had, [`EngineError::Model`] if the engine
    /// cannot load the model.
    pub fn load(
        runtime: Runtime,
        bytes: &[u8],
        what: &Path,
        intra_threads: usize,
    ) -> Result<Self, EngineError> {
        let model_error = |e: ort::Error| EngineError::Model {
            path: what.to_owned(),
            reason: format!("{} cannot load it: {e}", runtime.describe()),
        };
        let session = session_builder(runtime, intra_threads)
            .map_err(model_error)?
            .with_execution_providers(runtime.providers())
            .map_err(|e| runtime.device_error(e))?
            .commit_from_memory(bytes)
            .map_err(model_error)?;
        Ok(Self(session))
    }

    /// Shape and values of the output `probabilities`, or of the only output, for `images`
    /// `[N, C, H, W]`.
    ///
    /// # Errors
    ///
    /// A sentence, if there are not as many images as `shape` says, or the engine fails.
    pub fn run(
        &mut self,
        images: &[f32],
        shape: [usize; 4],
    ) -> Result<(Vec<usize>, Vec<f32>), String> {
        let wanted: usize = shape.iter().product();
        if wanted != images.len() || wanted == 0 {
            return Err(format!(
                "{} values were given for an input of {shape:?}",
                images.len()
            ));
        }
        let input = TensorRef::from_array_view((shape, images)).map_err(|e| e.to_string())?;
        let outputs = self.0.run(ort::inputs![input]).map_err(|e| e.to_string())?;
        // A scoring model may have other outputs beside it, a backbone has one of any name.
        let output = outputs.get(OUTPUT_NAME).unwrap_or(&outputs[0]);
        let output = output.try_extract_tensor::<f32>();
        let (shape, values) = output.map_err(|e| e.to_string())?;
        let shape = shape.iter().map(|size| *size as usize).collect();
        Ok((shape, values.to_vec()))
    }
}

/// A scoring model in a session.
#[derive(Debug)]
pub struct OrtEngine {
    session: OrtSession,
    spec: Arc<ModelSpec>,
    path: PathBuf,
}

impl OrtEngine {
    /// Loads `model` into a session on `runtime`'s device.
    ///
    /// # Errors
    ///
    /// As [`OrtSession::load`].
    pub fn load(
        runtime: Runtime,
        model: &ModelFile,
        intra_threads: usize,
    ) -> Result<Self, EngineError> {
        let session = OrtSession::load(runtime, model.bytes(), model.path(), intra_threads)?;
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
        let (shape, values) = self.session.run(images, shape)?;
        let classes = self.spec.classes.len();
        if shape != [batch, classes] {
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
        Ok(values)
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::imaging::{DecodeLimits, find_samples};
    use crate::score::model::tests::{SIDE, tiny_model, write};
    use crate::score::{PipelineOptions, RuntimeOptions, score};

    /// The tiny model on whichever engine this machine has.
    fn engines(dir: &std::path::Path, threads: usize) -> Vec<Box<dyn Engine>> {
        let model = ModelFile::open(&write(dir, &tiny_model())).unwrap();
        let runtime = Runtime::start(&RuntimeOptions::default()).unwrap();
        OrtEngine::load_all(runtime, &model, threads).unwrap()
    }

    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn probabilities_are_those_of_the_graph_for_every_batch_size() {
        let dir = tempfile::tempdir().unwrap();
        let plane = SIDE * SIDE;
        for engine in &mut engines(dir.path(), 2) {
            for batch in [3, 1, 8] {
                let image = |i: usize| (i / plane) as f32 / 10.0 - 1.0 + (i % 2) as f32 / 50.0;
                let images: Vec<f32> = (0..batch * 4 * plane).map(image).collect();
                let wanted = |row: &[f32]| sigmoid(row.iter().sum::<f32>() / plane as f32);
                let found = engine.run(&images, batch).unwrap();
                assert_eq!(found.len(), batch * engine.num_classes());
                for (found, row) in found.iter().zip(images.chunks(plane)) {
                    assert!(
                        (found - wanted(row)).abs() < 1e-5,
                        "{found} for {}",
                        wanted(row)
                    );
                }
            }
        }
    }

    #[test]
    fn input_of_the_wrong_length_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut engines = engines(dir.path(), 1);
        for (len, batch) in [(5, 1), (4 * SIDE * SIDE, 2), (0, 0)] {
            let error = engines[0]
                .run(&vec![0.0; len], batch)
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("{len} values")), "{error}");
        }
    }

    #[test]
    fn what_is_no_probability_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = tiny_model();
        let graph = bytes.graph.as_mut().unwrap();
        graph.node.last_mut().unwrap().op_type = "Identity".into();
        let model = ModelFile::open(&write(dir.path(), &bytes)).unwrap();
        let runtime = Runtime::start(&RuntimeOptions::default()).unwrap();
        let mut engine = OrtEngine::load(runtime, &model, 1).unwrap();
        let error = engine
            .run(&[-3.0; 4 * SIDE * SIDE], 1)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("-3") && error.contains("not a probability"),
            "{error}"
        );
        assert!(error.contains("model.onnx"), "{error}");
    }

    #[test]
    fn an_operator_that_the_engine_lacks_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut bytes = tiny_model();
        bytes.graph.as_mut().unwrap().node[0].op_type = "Frobnicate".into();
        let model = ModelFile::open(&write(dir.path(), &bytes)).unwrap();
        let runtime = Runtime::start(&RuntimeOptions::default()).unwrap();
        let error = OrtEngine::load(runtime, &model, 1).unwrap_err().to_string();
        assert!(
            error.contains("Frobnicate") && error.contains("model.onnx"),
            "{error}"
        );
    }

    #[test]
    fn a_folder_is_scored_and_its_bad_samples_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let mut engines = engines(dir.path(), 2);
        let channels = engines[0].spec().preprocess.channels.clone();
        for (id, gray) in [("a", 0), ("b", 90), ("c", 255), ("d", 1), ("e", 128)] {
            for channel in &channels {
                let image = image::GrayImage::from_pixel(9, 9, image::Luma([gray]));
                image
                    .save(dir.path().join(format!("{id}_{channel}.png")))
                    .unwrap();
            }
        }
        fs::write(dir.path().join("b_blue.png"), "not an image").unwrap();
        fs::remove_file(dir.path().join("d_yellow.png")).unwrap();
        let samples = find_samples(dir.path(), &channels).unwrap();
        let options = PipelineOptions {
            batch: 2,
            decode_threads: 2,
            limits: DecodeLimits::default(),
        };
        let table = score(&mut engines, &samples, &options, &|_| ()).unwrap();
        assert_eq!(table.ids, ["a", "b", "c", "d", "e"]);
        for (row, gray) in table
            .probabilities
            .iter()
            .zip([Some(0.0), None, Some(255.0), None])
        {
            let wanted = gray.map(|gray: f32| sigmoid((gray / 255.0 - 0.5) / 0.5));
            assert_eq!(row.is_some(), wanted.is_some());
            for probability in row.iter().flatten() {
                assert!(
                    (probability - wanted.unwrap()).abs() < 1e-5,
                    "{probability}"
                );
            }
        }
        let failed: Vec<_> = table.failures.iter().map(|f| (&*f.id, &*f.file)).collect();
        let blue = dir.path().join("b_blue.png").display().to_string();
        assert_eq!(failed, [("b", &*blue), ("d", "d_yellow.png")]);
    }
}

//! The trait of inference engines, and its implementation on `ort`.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Buffer, EngineError, ModelFile, OUTPUT_NAME, OrtSession, Runtime, SessionOptions};
use crate::model_metadata::{EMBEDDINGS_NAME, ModelSpec};
use rgby_imaging::Preprocess;

/// Computes probabilities of batches of images. Each worker thread owns one engine.
pub trait Engine: Send {
    /// Returns classes, thresholds and preprocessing of the model.
    fn spec(&self) -> &ModelSpec;

    /// Runs the model on `images` `[batch, C, H, W]` float32, preprocessed as [`spec`](Self::spec)
    /// says. With several [`inputs`](Self::inputs), the row of a sample holds one after the other.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`] if `images` has another length, the engine fails, or its output is not
    /// `batch × classes` probabilities.
    fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError>;

    /// Returns the preprocessings that make up the row of a sample; more than one only for an
    /// ensemble of models that differ in preprocessing.
    fn inputs(&self) -> Vec<Preprocess> {
        vec![self.spec().preprocess.clone()]
    }

    /// Allocates a buffer for `len` values of `images`, in memory that the device can read fast.
    ///
    /// # Errors
    ///
    /// [`EngineError::Run`] if there is not enough of such memory.
    fn buffer(&self, len: usize) -> Result<Buffer, EngineError> {
        Ok(Buffer::heap(len))
    }

    /// Returns only the probabilities of [`infer`](Self::infer).
    ///
    /// # Errors
    ///
    /// As [`infer`](Self::infer).
    fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>, EngineError> {
        Ok(self.infer(images, batch)?.probabilities)
    }

    /// Returns the number of classes: the length of one row of probabilities.
    fn num_classes(&self) -> usize {
        self.spec().classes.len()
    }
}

/// Output of an engine for a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferenceOutput {
    /// `[batch, classes]`, 0–1, row by row.
    pub probabilities: Vec<f32>,
    /// Pooled features `[batch, F]`; empty unless embeddings are enabled.
    pub embeddings: Vec<f32>,
}

impl InferenceOutput {
    /// Returns the output for the images `rows` of a batch of `batch`.
    ///
    /// # Panics
    ///
    /// If `rows` reaches past the batch.
    #[must_use]
    pub fn rows(&self, rows: Range<usize>, batch: usize) -> Self {
        let part = |values: &[f32]| {
            let width = values.len() / batch;
            values[rows.start * width..rows.end * width].to_vec()
        };
        Self {
            probabilities: part(&self.probabilities),
            embeddings: part(&self.embeddings),
        }
    }

    /// Returns the output for the first `count` images of a batch of `batch`.
    pub(super) fn truncated(mut self, count: usize, batch: usize) -> Self {
        for values in [&mut self.probabilities, &mut self.embeddings] {
            values.truncate(values.len() / batch * count);
        }
        self
    }
}

/// A model in a session of `ort`.
#[derive(Debug)]
pub struct OrtEngine {
    session: OrtSession,
    spec: Arc<ModelSpec>,
    path: PathBuf,
    /// Width of the embeddings, if they are enabled.
    embeddings: Option<usize>,
}

impl OrtEngine {
    /// Loads `model` into a session on the device of `runtime`; `options` may be a number of
    /// threads.
    ///
    /// # Errors
    ///
    /// As [`OrtSession::load`], or the file was changed after it was checked.
    pub fn load(
        runtime: Runtime,
        model: &ModelFile,
        options: impl Into<SessionOptions>,
    ) -> Result<Self, EngineError> {
        let mut engines = Self::load_several(runtime, model, &options.into(), 1)?;
        Ok(engines.remove(0))
    }

    /// Loads `model` into `count` sessions on the device of `runtime`. Those of a
    /// [group](Runtime::session_groups) share the weights.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_several(
        runtime: Runtime,
        model: &ModelFile,
        options: &SessionOptions,
        count: usize,
    ) -> Result<Vec<Self>, EngineError> {
        let sessions = OrtSession::load_several(runtime, model, options, count)?;
        let engine = |session| Self {
            session,
            spec: model.spec().clone(),
            path: model.name().to_owned(),
            embeddings: None,
        };
        Ok(sessions.into_iter().map(engine).collect())
    }

    /// Enables embeddings, if the model has them.
    #[must_use]
    pub fn with_embeddings(mut self) -> Self {
        self.embeddings = self.spec.embeddings;
        self
    }

    fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, String> {
        let (channels, side) = (
            self.spec.preprocess.channels.len(),
            self.spec.preprocess.size,
        );
        let shape = [batch, channels, side as usize, side as usize];
        let classes = self.spec.classes.len();
        let names: &[&str] = match self.embeddings {
            Some(_) => &[OUTPUT_NAME, EMBEDDINGS_NAME],
            None => &[OUTPUT_NAME],
        };
        let mut outputs = self.session.run_named(images, shape, names)?.into_iter();
        let mut next = |width| rows([batch, width], outputs.next().unwrap_or_default());
        let output = InferenceOutput {
            probabilities: next(classes)?,
            embeddings: self.embeddings.map_or(Ok(Vec::new()), next)?,
        };
        self.check(&output.probabilities)?;
        Ok(output)
    }

    /// Checks that all values are probabilities.
    fn check(&self, values: &[f32]) -> Result<(), String> {
        // The range excludes NaN.
        let Some(at) = values.iter().position(|p| !(0.0..=1.0).contains(p)) else {
            return Ok(());
        };
        let classes = &self.spec.classes;
        let (value, class) = (values[at], &classes[at % classes.len()]);
        Err(format!(
            "{value} for class `{class}` is not a probability: the weights may be damaged, or the \
             file was not written by `rgby export`"
        ))
    }
}

/// Returns the values of an output that must be `[batch, width]`.
fn rows(wanted: [usize; 2], (shape, values): (Vec<usize>, Vec<f32>)) -> Result<Vec<f32>, String> {
    if shape == wanted {
        return Ok(values);
    }
    Err(format!(
        "an output has shape {shape:?} instead of {wanted:?}"
    ))
}

impl Engine for OrtEngine {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn buffer(&self, len: usize) -> Result<Buffer, EngineError> {
        self.session.buffer(len).map_err(|reason| EngineError::Run {
            path: self.path.clone(),
            reason,
        })
    }

    fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError> {
        self.infer(images, batch)
            .map_err(|reason| EngineError::Run {
                path: self.path.clone(),
                reason,
            })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::tests::{SIDE, tiny_model, write};
    use crate::{PipelineOptions, RuntimeOptions, score_samples};
    use rgby_imaging::{DecodeLimits, find_samples};

    /// Loads the tiny model on the engine of this machine.
    fn engines(dir: &std::path::Path, threads: usize) -> Vec<Box<dyn Engine>> {
        let model = ModelFile::open(&write(dir, &tiny_model())).unwrap();
        let runtime = Runtime::start(&RuntimeOptions::default()).unwrap();
        let load = |_| OrtEngine::load(runtime, &model, 1).unwrap();
        (0..threads)
            .map(|i| Box::new(load(i)) as Box<dyn Engine>)
            .collect()
    }

    fn sigmoid(x: f32) -> f32 {
        1.0 / (1.0 + (-x).exp())
    }

    #[test]
    fn probabilities_match_the_graph_for_every_batch_size() {
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
    fn input_of_the_wrong_length_is_rejected() {
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
    fn values_outside_0_to_1_are_an_error() {
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
    fn an_unsupported_operator_is_an_error() {
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
    fn scores_a_folder_and_lists_unreadable_samples() {
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
            whole_batches: true,
        };
        let table = score_samples(&mut engines, &samples, &options, &|_| ()).unwrap();
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

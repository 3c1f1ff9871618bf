//! Ensembles: models whose probabilities are averaged.

use std::sync::Arc;

use super::test_time_augmentation::{Averager, TestTimeAugmentation};
use super::{
    Buffer, Engine, EngineError, InferenceOutput, ModelFile, OrtEngine, Runtime, SessionOptions,
    TtaCombination,
};
use crate::model_metadata::ModelSpec;
use rgby_imaging::{Preprocess, PreprocessorSet};

/// One model or several, whose probabilities are averaged.
#[derive(Debug, Clone)]
pub struct Ensemble {
    /// At least one.
    models: Vec<ModelFile>,
    /// How the probabilities of augmented images are combined; `None` without augmentation.
    tta: Option<TtaCombination>,
    embeddings: bool,
    spec: Arc<ModelSpec>,
}

impl Ensemble {
    /// Creates an ensemble of `model` and `others`.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`] for the first model whose classes are not those of `model` in the
    /// same order, or that occurs twice.
    pub fn new(model: ModelFile, others: Vec<ModelFile>) -> Result<Self, EngineError> {
        let mut spec = model.spec().clone();
        let mut models = vec![model];
        for other in others {
            let unfit = |reason| EngineError::Model {
                path: other.name().to_owned(),
                reason,
            };
            check_classes(&models[0], &other).map_err(unfit)?;
            let hash = other.sha256().to_owned();
            if let Some(same) = models.iter().find(|model| model.sha256() == hash) {
                let same = same.name().display();
                return Err(unfit(format!(
                    "is the same model as {same}, which would count twice; name it once"
                )));
            }
            models.push(other);
        }
        if models.len() > 1 {
            let mut thresholds = Averager::default();
            for model in &models {
                thresholds.add(&model.spec().thresholds);
            }
            Arc::make_mut(&mut spec).thresholds = thresholds.get();
        }
        Ok(Self {
            models,
            tta: None,
            embeddings: false,
            spec,
        })
    }

    /// Combines the probabilities of the eight rotations and flips of each image, per model.
    #[must_use]
    pub fn with_tta(mut self, combine: TtaCombination) -> Self {
        self.tta = Some(combine);
        self
    }

    /// Adds the embeddings of the first model to the outputs.
    ///
    /// # Errors
    ///
    /// [`EngineError::Model`] if it has none.
    pub fn with_embeddings(mut self) -> Result<Self, EngineError> {
        if self.spec.embeddings.is_none() {
            return Err(EngineError::Model {
                path: self.models[0].name().to_owned(),
                reason: "has no embeddings output; export it again with `rgby export \
                         --with-embeddings`"
                    .into(),
            });
        }
        self.embeddings = true;
        Ok(self)
    }

    /// Returns the models; embeddings are those of the first one.
    #[must_use]
    pub fn models(&self) -> &[ModelFile] {
        &self.models
    }

    /// Returns the spec of the first model, with the mean thresholds of all models.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Returns the number of embeddings per sample; 0 without embeddings.
    #[must_use]
    pub fn embeddings(&self) -> usize {
        let width = self.spec.embeddings.filter(|_| self.embeddings);
        width.unwrap_or(0)
    }

    /// Returns the stains of which a sample needs files.
    #[must_use]
    pub fn stains(&self) -> Vec<String> {
        PreprocessorSet::stains(&self.inputs())
    }

    /// Returns the distinct preprocessings, in the order of the models.
    fn inputs(&self) -> Vec<Preprocess> {
        let mut inputs: Vec<Preprocess> = Vec::new();
        for model in &self.models {
            if !inputs.contains(&model.spec().preprocess) {
                inputs.push(model.spec().preprocess.clone());
            }
        }
        inputs
    }

    /// Loads each model into `count` sessions on the device of `runtime`; returns `count` engines
    /// with a session of each model. The sessions of a [group](Runtime::session_groups) share the
    /// weights.
    ///
    /// # Errors
    ///
    /// As [`OrtSession::load`](super::OrtSession::load).
    pub fn load_several(
        &self,
        runtime: Runtime,
        options: &SessionOptions,
        count: usize,
    ) -> Result<Vec<Box<dyn Engine>>, EngineError> {
        let mut members: Vec<Vec<Box<dyn Engine>>> = (0..count).map(|_| Vec::new()).collect();
        for (number, model) in self.models.iter().enumerate() {
            let engines = OrtEngine::load_several(runtime, model, options, count)?;
            for (engine, members) in engines.into_iter().zip(&mut members) {
                members.push(self.member(engine, number));
            }
        }
        let join = |mut engines: Vec<Box<dyn Engine>>| match engines.len() {
            1 => engines.remove(0),
            _ => Box::new(EnsembleEngine {
                engines,
                spec: self.spec.clone(),
                inputs: self.inputs(),
                batch: Vec::new(),
            }),
        };
        Ok(members.into_iter().map(join).collect())
    }

    /// Adds embeddings and test-time augmentation to the engine of the model `number`.
    fn member(&self, mut engine: OrtEngine, number: usize) -> Box<dyn Engine> {
        if self.embeddings && number == 0 {
            engine = engine.with_embeddings();
        }
        match self.tta {
            Some(combine) => Box::new(TestTimeAugmentation::new(Box::new(engine), combine)),
            None => Box::new(engine),
        }
    }
}

/// Checks that both models have the same classes in the same order.
fn check_classes(model: &ModelFile, other: &ModelFile) -> Result<(), String> {
    let (own, others) = (&model.spec().classes, &other.spec().classes);
    let first = model.name().display();
    let differs = own.iter().zip(others).position(|(a, b)| a != b);
    if let Some(at) = differs {
        return Err(format!(
            "its class {at} is `{}`, that of {first} is `{}`; the models of an ensemble need the \
             same classes in the same order",
            others[at], own[at]
        ));
    }
    if own.len() == others.len() {
        return Ok(());
    }
    Err(format!(
        "has {} classes, {first} has {}; the models of an ensemble need the same classes in the \
         same order",
        others.len(),
        own.len()
    ))
}

/// One engine for each model of an ensemble.
struct EnsembleEngine {
    engines: Vec<Box<dyn Engine>>,
    spec: Arc<ModelSpec>,
    inputs: Vec<Preprocess>,
    /// Buffer for the batch of one model.
    batch: Vec<f32>,
}

impl EnsembleEngine {
    /// Returns the length of the row of a sample.
    fn row(&self) -> usize {
        self.inputs.iter().map(Preprocess::input_len).sum()
    }

    /// Returns the range of the input of a model in the row of a sample.
    fn place(&self, number: usize) -> std::ops::Range<usize> {
        let wanted = &self.engines[number].spec().preprocess;
        let before = self.inputs.iter().take_while(|input| *input != wanted);
        let start = before.map(Preprocess::input_len).sum();
        start..start + wanted.input_len()
    }
}

impl Engine for EnsembleEngine {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn inputs(&self) -> Vec<Preprocess> {
        self.inputs.clone()
    }

    fn buffer(&self, len: usize) -> Result<Buffer, EngineError> {
        self.engines[0].buffer(len)
    }

    fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError> {
        let row = self.row();
        let (mut probabilities, mut embeddings) = (Averager::default(), Vec::new());
        for number in 0..self.engines.len() {
            let place = self.place(number);
            let input = if place.len() == row {
                images
            } else {
                self.batch.clear();
                for row in images.chunks_exact(row) {
                    self.batch.extend_from_slice(&row[place.clone()]);
                }
                &self.batch
            };
            let output = self.engines[number].infer(input, batch)?;
            probabilities.add(&output.probabilities);
            if number == 0 {
                embeddings = output.embeddings;
            }
        }
        Ok(InferenceOutput {
            probabilities: probabilities.get(),
            embeddings,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RuntimeOptions;
    use crate::model::tests::{SIDE, other_model, tiny_model, write_as};

    #[test]
    fn averages_models_with_different_inputs() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name, model: &_| ModelFile::open(&write_as(dir.path(), name, model)).unwrap();
        let first = open("a.onnx", &tiny_model());
        // Half the size, another normalisation, and other thresholds.
        let second = open(
            "b.onnx",
            &other_model(SIDE / 2, |spec| {
                spec.thresholds = vec![0.1, 0.2, 0.3, 0.4];
                spec.preprocess.mean = vec![0.0; 4];
            }),
        );
        let ensemble = Ensemble::new(first.clone(), vec![second]).unwrap();
        assert_eq!(ensemble.spec().thresholds, [0.3, 0.35, 0.4, 0.45]);
        let runtime = Runtime::start(&RuntimeOptions::default()).unwrap();
        let mut engine = ensemble
            .load_several(runtime, &1.into(), 1)
            .unwrap()
            .remove(0);
        let inputs = engine.inputs();
        assert_eq!(inputs.iter().map(|i| i.size).collect::<Vec<_>>(), [4, 2]);
        // Each plane has one value: -1.5, -1, … in the first input, and so much more in the second.
        let sample = |shift: f32| {
            let plane = move |side: usize, more: f32| {
                (0..4).flat_map(move |c| vec![c as f32 * 0.5 - 1.5 + more + shift; side * side])
            };
            plane(SIDE, 0.0).chain(plane(SIDE / 2, 0.75))
        };
        let images: Vec<f32> = sample(0.0).chain(sample(0.1)).collect();
        let found = engine.run(&images, 2).unwrap();
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        for (at, found) in found.iter().enumerate() {
            let x = (at % 4) as f32 * 0.5 - 1.5 + (at / 4) as f32 * 0.1;
            let wanted = f32::midpoint(sigmoid(x), sigmoid(x + 0.75));
            assert!((found - wanted).abs() < 1e-6, "{found} for {wanted}");
        }
        // Alike in preprocessing, the row holds one input.
        let third = open("c.onnx", &other_model(SIDE, |spec| spec.arch = "c".into()));
        let alike = Ensemble::new(first, vec![third]).unwrap();
        assert_eq!(alike.inputs().len(), 1);
    }

    #[test]
    fn incompatible_models_are_rejected() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name, model: &_| ModelFile::open(&write_as(dir.path(), name, model)).unwrap();
        let first = open("a.onnx", &tiny_model());
        let swapped = open("b.onnx", &other_model(SIDE, |spec| spec.classes.swap(1, 2)));
        let refused = |model: &ModelFile| {
            let error = Ensemble::new(first.clone(), vec![model.clone()]).unwrap_err();
            error.to_string()
        };
        let error = refused(&swapped);
        for part in ["b.onnx", "class 1 is `blue`", "a.onnx is `green`"] {
            assert!(error.contains(part), "no {part} in {error}");
        }
        assert!(refused(&first).contains("would count twice"));
        let alone = Ensemble::new(first, Vec::new()).unwrap();
        assert_eq!(alone.embeddings(), 0);
        let error = alone.with_embeddings().unwrap_err().to_string();
        assert!(error.contains("--with-embeddings"), "{error}");
    }
}

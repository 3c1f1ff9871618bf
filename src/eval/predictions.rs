//! Probabilities of the labelled samples, from a model, a checkpoint or a file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::data::EvalData;
#[cfg(feature = "train")]
use super::run_data::RunData;
use super::{EvalConfig, EvalError, EvalSubject};
use crate::data::{LabelTable, read_class_names, read_scores};
use crate::imaging::{CHANNELS, Sample};
use crate::labels::hpa_classes;
use crate::model_metadata::ModelSpec;
use crate::score::{
    Engine, Ensemble, Failure, PipelineOptions, ScoreObserver, ScoreTable, Scorer, Threshold,
    open_model, output,
};

/// The threshold of a scores file.
const DEFAULT_THRESHOLD: f32 = 0.5;

/// Labels, and a row of probabilities or a failure for each.
pub(super) struct LabelledPredictions {
    /// The model, run or scores file.
    pub subject: PathBuf,
    pub classes: Vec<String>,
    /// One per class.
    pub thresholds: Vec<f32>,
    /// For example `at 0.5`.
    pub threshold_name: String,
    /// What ran the model; `None` for a scores file.
    pub engine: Option<String>,
    pub labels_path: PathBuf,
    pub labels: LabelTable,
    /// In the order of the labels.
    pub table: ScoreTable,
    pub images_path: Option<PathBuf>,
    /// Image files of the labelled samples; empty if a scores file has no images.
    pub images: Vec<Sample>,
    /// Metadata of the model, as names and values.
    pub about: Vec<(String, String)>,
    /// The model, if occlusion maps are to be computed.
    pub model: Option<LoadedModel>,
}

/// A model that has scored the samples and is still loaded.
pub(super) struct LoadedModel {
    pub engines: Vec<Box<dyn Engine>>,
    pub options: PipelineOptions,
}

impl LabelledPredictions {
    /// Scores or reads the labelled samples of `subject`.
    pub fn load(
        subject: &EvalSubject,
        config: &EvalConfig,
        observer: &dyn ScoreObserver,
    ) -> Result<Self, EvalError> {
        match subject {
            EvalSubject::Scores(path) => Self::from_scores(path, config, observer),
            #[cfg(feature = "train")]
            EvalSubject::Model(path) if path.is_dir() => {
                check_burn_options(path, config)?;
                let data = EvalData::from_config(config)?;
                let dir = crate::train::resolve(path)?;
                Self::from_checkpoint(path, &dir, &data, (config, observer))
            }
            EvalSubject::Model(path) => Self::from_model(path, config, observer),
            #[cfg(feature = "train")]
            EvalSubject::Run(path) => {
                check_burn_options(path, config)?;
                let run = RunData::open(path, config)?;
                run.notes.iter().for_each(|note| observer.note(note));
                let predictions =
                    Self::from_checkpoint(path, &run.checkpoint, &run.data, (config, observer));
                predictions.map(|predictions| Self {
                    about: [vec![run.about], predictions.about].concat(),
                    ..predictions
                })
            }
            #[cfg(not(feature = "train"))]
            EvalSubject::Run(path) => Err(EvalError::RunData {
                run: path.clone(),
                reason:
                    "this build of rgby cannot run checkpoints\nhint: build it with the feature \
                         `train`"
                        .into(),
            }),
        }
    }

    fn from_model(
        path: &Path,
        config: &EvalConfig,
        observer: &dyn ScoreObserver,
    ) -> Result<Self, EvalError> {
        let data = EvalData::from_config(config)?;
        // Before the model is opened, which takes longer.
        data.images()?;
        let model = open_model("--model", path)?;
        let sha256 = model.sha256().to_owned();
        let ensemble = Ensemble::new(model, Vec::new())?;
        let spec = ensemble.spec();
        let (labels, images) = data.find_samples(spec, observer)?;
        let mut scorer = Scorer::start(&ensemble, &config.engine, observer)?;
        let table = scorer.score(&images, observer)?;
        let options = scorer.options().clone();
        let mut predictions = Self {
            engine: Some(scorer.started().name.clone()),
            labels,
            images,
            table,
            model: config.occlusion_maps.then(|| LoadedModel {
                options,
                engines: scorer.into_engines(),
            }),
            ..Self::unscored(path, spec, &data, config.threshold.unwrap_or_default())
        };
        predictions.about.push(("SHA-256".into(), sha256));
        Ok(predictions)
    }

    /// Runs the checkpoint in `dir` with Burn. `subject` is the path for the report.
    #[cfg(feature = "train")]
    fn from_checkpoint(
        subject: &Path,
        dir: &Path,
        data: &EvalData,
        (config, observer): (&EvalConfig, &dyn ScoreObserver),
    ) -> Result<Self, EvalError> {
        use crate::export::BurnEngine;
        use crate::score::score_with;

        let engine = BurnEngine::load(dir)?;
        let spec = engine.spec().clone();
        let (labels, images) = data.find_samples(&spec, observer)?;
        let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(engine)];
        let options = config.engine.pipeline();
        let table = score_with(&mut engines, &images, &options, observer)?;
        Ok(Self {
            engine: Some(format!("Burn on cpu, {}", dir.display())),
            labels,
            images,
            table,
            model: config
                .occlusion_maps
                .then_some(LoadedModel { engines, options }),
            ..Self::unscored(subject, &spec, data, config.threshold.unwrap_or_default())
        })
    }

    /// Returns the metadata of a model, without samples.
    fn unscored(path: &Path, spec: &ModelSpec, data: &EvalData, threshold: Threshold) -> Self {
        Self {
            subject: path.to_owned(),
            classes: spec.classes.clone(),
            thresholds: threshold.for_model(spec),
            threshold_name: threshold_name(threshold),
            engine: None,
            labels_path: data.labels.clone(),
            labels: LabelTable {
                ids: Vec::new(),
                targets: Vec::new(),
            },
            table: ScoreTable::default(),
            images_path: data.images.as_ref().map(|images| images.path.clone()),
            images: Vec::new(),
            about: model_metadata(spec),
            model: None,
        }
    }

    /// Reads the rows of the labelled samples from a scores file.
    fn from_scores(
        path: &Path,
        config: &EvalConfig,
        observer: &dyn ScoreObserver,
    ) -> Result<Self, EvalError> {
        let threshold = config
            .threshold
            .unwrap_or(Threshold::Fixed(DEFAULT_THRESHOLD));
        let Threshold::Fixed(value) = threshold else {
            return Err(EvalError::ThresholdOfScores);
        };
        let data = EvalData::from_config(config)?;
        let ids = config.ids.as_deref();
        let ids = ids.map(|file| output::read_ids(file).map(|ids| (file, ids)));
        let names = config
            .classes
            .as_deref()
            .map(read_class_names)
            .transpose()?;
        let mut scores = read_scores(path, ids.transpose()?, names.as_deref())?;
        if let Some(note) = &scores.note {
            observer.note(&format!("{}: {note}", path.display()));
        }
        let labels = data.read_labels(scores.classes.len(), observer)?;
        let table = take_rows(&labels.ids, &mut scores.rows, path);
        if !scores.rows.is_empty() {
            observer.note(&format!(
                "{}: ids without a label are left out: {}",
                path.display(),
                scores.rows.len()
            ));
        }
        let images = match &data.images {
            Some(images) => output::select(images.find(&CHANNELS.map(String::from))?, &labels.ids),
            None => Vec::new(),
        };
        Ok(Self {
            subject: path.to_owned(),
            thresholds: vec![value; scores.classes.len()],
            threshold_name: threshold_name(threshold),
            classes: scores.classes,
            engine: None,
            labels_path: data.labels,
            labels,
            table,
            images_path: data.images.map(|images| images.path),
            images,
            about: Vec::new(),
            model: None,
        })
    }
}

/// Rejects options of engines that do not run checkpoints.
#[cfg(feature = "train")]
fn check_burn_options(subject: &Path, config: &EvalConfig) -> Result<(), EvalError> {
    use crate::score::{Device, EngineChoice};

    let engine = &config.engine;
    let only_cpu_options = engine.devices.all() == [Device::Cpu]
        && engine.engine == EngineChoice::Auto
        && engine.ort_lib.is_none()
        && engine.engine_config.is_none()
        && engine.sessions.is_none()
        && engine.intra_threads.is_none();
    if only_cpu_options {
        return Ok(());
    }
    Err(EvalError::EngineOptions(subject.to_owned()))
}

/// Removes the rows of these samples from `rows`, those of the file `path`, and returns them.
fn take_rows(
    ids: &[String],
    rows: &mut HashMap<String, Option<Vec<f32>>>,
    path: &Path,
) -> ScoreTable {
    let mut table = ScoreTable {
        ids: ids.to_vec(),
        ..ScoreTable::default()
    };
    for id in ids {
        let row = rows.remove(id);
        let error = match row {
            None => Some("no row for this sample"),
            Some(None) => Some("its row is empty"),
            Some(Some(_)) => None,
        };
        table.failures.extend(error.map(|error| Failure {
            id: id.clone(),
            file: path.display().to_string(),
            error: error.into(),
        }));
        table.probabilities.push(row.flatten());
    }
    table
}

fn threshold_name(threshold: Threshold) -> String {
    match threshold {
        Threshold::Tuned => "at the model's thresholds".into(),
        Threshold::Fixed(threshold) => format!("at {threshold}"),
    }
}

/// Returns the metadata of a model for the report, as names and values.
fn model_metadata(spec: &ModelSpec) -> Vec<(String, String)> {
    let p = &spec.preprocess;
    let numbers = |values: &[f32]| {
        let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
        texts.join(", ")
    };
    let provenance = &spec.provenance;
    let mut about = vec![
        ("network".into(), spec.arch.clone()),
        ("channels".into(), p.channels.join(", ")),
        ("input".into(), format!("{0} × {0} pixels", p.size)),
        ("mean".into(), numbers(&p.mean)),
        ("std".into(), numbers(&p.std)),
        ("precision".into(), spec.precision.to_string()),
        ("training steps".into(), provenance.steps.to_string()),
        (
            "created by".into(),
            format!("rgby {}", provenance.rgby_version),
        ),
    ];
    let source = [
        ("pretrained file", &provenance.source),
        ("its SHA-256", &provenance.source_sha256),
    ];
    for (name, value) in source {
        about.extend(value.iter().map(|value| (name.to_owned(), value.clone())));
    }
    if spec.classes == hpa_classes() {
        about.push(("classes".into(), "those of the Human Protein Atlas".into()));
    }
    about
}

//! Probabilities for the labelled samples: a model's, a checkpoint's or a file's.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};

use super::super::Ui;
use super::EvalArgs;
use super::overlays::Runner;
use crate::data::{LabelTable, read_class_names, read_labels, read_scores};
use crate::imaging::{CHANNELS, Sample};
use crate::labels::hpa_classes;
use crate::metrics::Labelled;
use crate::model_metadata::ModelSpec;
use crate::score::{Ensemble, Failure, ScoreTable, Scorer, Threshold, open_model, output};

/// The threshold of every class where no model says its own.
const DEFAULT_THRESHOLD: f32 = 0.5;

/// Labels, and a row of probabilities or a failure for each.
pub(super) struct Answers {
    /// The model or the scores file.
    pub subject: PathBuf,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// The threshold of each class, and where it is from.
    pub thresholds: Vec<f32>,
    pub threshold_name: String,
    /// What ran the model, if one did.
    pub engine: Option<String>,
    pub labels: LabelTable,
    /// In the order of the labels.
    pub table: ScoreTable,
    /// Files of pictures, if there are any.
    pub pictures: Vec<Sample>,
    /// What is known of the model or file.
    pub about: Vec<(String, String)>,
    /// The model, if it is to be asked again.
    pub runner: Option<Runner>,
}

/// The samples that were both labelled and scored.
pub(super) struct Judged {
    pub ids: Vec<String>,
    /// The classes of each.
    pub sets: Vec<Vec<u16>>,
    /// `[samples, classes]`
    pub probabilities: Vec<f32>,
    pub targets: Vec<f32>,
    pub classes: usize,
}

impl Judged {
    /// Those of `answers` that `wanted` lets through.
    pub fn of(answers: &Answers, wanted: impl Fn(usize) -> bool) -> anyhow::Result<Self> {
        let classes = answers.classes.len();
        let mut judged = Self {
            ids: Vec::new(),
            sets: Vec::new(),
            probabilities: Vec::new(),
            targets: Vec::new(),
            classes,
        };
        let labels = &answers.labels;
        for (at, row) in answers.table.probabilities.iter().enumerate() {
            let Some(row) = row.as_ref().filter(|_| wanted(at)) else {
                continue;
            };
            judged.ids.push(labels.ids[at].clone());
            judged.sets.push(labels.targets[at].clone());
            judged.probabilities.extend_from_slice(row);
            let start = judged.targets.len();
            judged.targets.resize(start + classes, 0.0);
            for class in &labels.targets[at] {
                judged.targets[start + usize::from(*class)] = 1.0;
            }
        }
        if let (true, Some(first)) = (judged.ids.is_empty(), answers.table.failures.first()) {
            bail!(
                "not one of the {} labelled samples could be judged; the first is `{}`: {} {}",
                labels.ids.len(),
                first.id,
                first.file,
                first.error
            );
        }
        Ok(judged)
    }

    pub fn data(&self) -> anyhow::Result<Labelled<'_>> {
        let labelled = Labelled::new(&self.probabilities, &self.targets, self.classes);
        labelled.map_err(|e| anyhow!(e))
    }
}

impl EvalArgs {
    /// The labels; one sample at least must have a class.
    fn read_labels(&self, classes: usize) -> anyhow::Result<LabelTable> {
        let labels = read_labels(&self.labels, classes)?;
        ensure!(
            labels.targets.iter().any(|classes| !classes.is_empty()),
            "labels file {}: not one of its {} samples has a class, so that there is nothing to \
             judge by; fill in the column `Target`",
            self.labels.display(),
            labels.ids.len()
        );
        Ok(labels)
    }

    /// A model's or a scores file's, as its name says.
    pub(super) fn ask_any(&self, path: &Path, ui: &Ui) -> anyhow::Result<Answers> {
        if path.is_dir() || path.extension().is_some_and(|e| e == "onnx") {
            self.ask_model(Some(path), ui)
        } else {
            self.read_scores(path, ui)
        }
    }

    /// The probabilities that the model gives the labelled samples.
    pub(super) fn ask_model(&self, model: Option<&Path>, ui: &Ui) -> anyhow::Result<Answers> {
        const MISSING: &str = "name a model with --model and its images with --images";
        let path = model.context(MISSING)?;
        let images = self.images.as_deref().context(MISSING)?;
        #[cfg(feature = "train")]
        if path.is_dir() {
            return self.ask_checkpoint(path, images, ui);
        }
        let model = open_model("--model", path)?;
        let sha256 = model.sha256().to_owned();
        let alone = Ensemble::new(model, Vec::new())?;
        let spec = alone.spec();
        let (labels, samples) = self.labelled_samples(spec, images)?;
        let mut running = Scorer::start(&alone, &self.engine.options(), &ui.scoring())?;
        let table = running.score(&samples, &ui.scoring())?;
        let mut answers = self.of_model(path, spec, labels, samples);
        answers.engine = Some(running.started().name.clone());
        answers.runner = self.wants_overlays().then(|| Runner {
            batch: running.options().batch,
            whole_batches: running.options().whole_batches,
            engines: running.into_engines(),
        });
        answers.table = table;
        answers.about.push(("SHA-256".into(), sha256));
        Ok(answers)
    }

    /// The probabilities that Burn computes.
    #[cfg(feature = "train")]
    fn ask_checkpoint(&self, path: &Path, images: &Path, ui: &Ui) -> anyhow::Result<Answers> {
        use crate::export::BurnEngine;
        use crate::score::{Device, Engine, EngineChoice, score_with};
        use crate::train::resolve;

        let runner = &self.engine.runner;
        let plain = self.engine.device.all() == [Device::Cpu]
            && runner.engine == EngineChoice::Auto
            && runner.ort_lib.is_none()
            && runner.engine_config.is_none()
            && runner.sessions.is_none()
            && runner.intra_threads.is_none();
        ensure!(
            plain,
            "--model {} is a run or checkpoint, which Burn runs on the CPU; --device, --engine, \
             --ort-lib, --engine-config, --sessions and --intra-threads are for exported models: \
             `rgby export --from {} --out model.onnx`",
            path.display(),
            path.display()
        );
        let dir = resolve(path)?;
        let engine = BurnEngine::load(&dir)?;
        let spec = engine.spec().clone();
        let (labels, samples) = self.labelled_samples(&spec, images)?;
        let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(engine)];
        let options = self.engine.options().pipeline();
        let table = score_with(&mut engines, &samples, &options, &ui.scoring())?;
        let mut answers = self.of_model(path, &spec, labels, samples);
        answers.runner = self.wants_overlays().then_some(Runner {
            engines,
            batch: options.batch,
            whole_batches: options.whole_batches,
        });
        answers.engine = Some(format!("Burn on cpu, {}", dir.display()));
        answers.table = table;
        Ok(answers)
    }

    fn labelled_samples(
        &self,
        spec: &ModelSpec,
        images: &Path,
    ) -> anyhow::Result<(LabelTable, Vec<Sample>)> {
        let labels = self.read_labels(spec.classes.len())?;
        let samples = self.layout.of(images)?.find(&spec.preprocess.stains())?;
        let samples = output::select(samples, &labels.ids);
        Ok((labels, samples))
    }

    /// What a model's spec says; nothing scored yet.
    fn of_model(
        &self,
        path: &Path,
        spec: &ModelSpec,
        labels: LabelTable,
        samples: Vec<Sample>,
    ) -> Answers {
        let threshold = self.threshold.unwrap_or_default();
        Answers {
            subject: path.to_owned(),
            classes: spec.classes.clone(),
            thresholds: threshold.for_model(spec),
            threshold_name: threshold_name(threshold),
            engine: None,
            labels,
            table: ScoreTable {
                ids: Vec::new(),
                probabilities: Vec::new(),
                failures: Vec::new(),
            },
            pictures: samples,
            about: about(spec),
            runner: None,
        }
    }

    /// The probabilities that a scores file holds for the labelled samples.
    pub(super) fn read_scores(&self, path: &Path, ui: &Ui) -> anyhow::Result<Answers> {
        let threshold = self
            .threshold
            .unwrap_or(Threshold::Fixed(DEFAULT_THRESHOLD));
        let Threshold::Fixed(value) = threshold else {
            bail!(
                "--threshold tuned stands for a model's own thresholds, which a scores file does \
                 not have; give a number"
            );
        };
        let with_path = |file| anyhow::Ok((file, output::read_ids(file)?));
        let ids = self.ids.as_deref().map(with_path).transpose()?;
        let names = self.classes.as_deref().map(read_class_names).transpose()?;
        let mut read = read_scores(path, ids, names.as_deref())?;
        if let Some(note) = &read.note {
            ui.note(&format!("{}: {note}", path.display()));
        }
        let labels = self.read_labels(read.classes.len())?;
        let table = rows_of(&labels.ids, &mut read.rows, path);
        if !read.rows.is_empty() {
            let (more, file) = (read.rows.len(), path.display());
            ui.note(&format!(
                "{file}: {more} more ids, which have no label, are left out"
            ));
        }
        Ok(Answers {
            subject: path.to_owned(),
            thresholds: vec![value; read.classes.len()],
            threshold_name: threshold_name(threshold),
            pictures: self.pictures(&labels)?,
            classes: read.classes,
            engine: None,
            table,
            labels,
            about: Vec::new(),
            runner: None,
        })
    }

    /// The images of `--images`, for a report on a scores file.
    fn pictures(&self, labels: &LabelTable) -> anyhow::Result<Vec<Sample>> {
        let Some(images) = &self.images else {
            return Ok(Vec::new());
        };
        let samples = self.layout.of(images)?.find(&CHANNELS.map(String::from))?;
        Ok(output::select(samples, &labels.ids))
    }
}

/// Takes the rows of these samples out of those of the file `path`.
fn rows_of(
    ids: &[String],
    rows: &mut HashMap<String, Option<Vec<f32>>>,
    path: &Path,
) -> ScoreTable {
    let mut table = ScoreTable {
        ids: ids.to_vec(),
        probabilities: Vec::new(),
        failures: Vec::new(),
    };
    for id in ids {
        let row = rows.remove(id);
        let error = match row {
            None => Some("has no line for it"),
            Some(None) => Some("its line is empty"),
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

/// What a model says about itself, for the report.
fn about(spec: &ModelSpec) -> Vec<(String, String)> {
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
            "made by".into(),
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

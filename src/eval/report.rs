//! The result of an evaluation, as JSON and as files.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::occlusion_maps::OcclusionMaps;
use super::operating_points::{ThresholdSet, operating_points};
use super::predictions::LabelledPredictions;
use super::samples::EvaluatedSamples;
use super::tuning::{ClassRatios, fold_count, tune};
use super::{EvalConfig, EvalError, ThresholdTuning};
use crate::imaging::Sample;
use crate::metrics::{Bootstrap, Calibration, CrossFit, Evaluation, Intervals, evaluate_decisions};
use crate::model_metadata::ThresholdFile;
use crate::report::OperatingPoint;
use crate::score::Failure;

/// The threshold that is always evaluated, for comparisons.
const HALF: f32 = 0.5;

/// Result of an evaluation.
pub struct EvalReport {
    /// The model, run or scores file.
    pub subject: PathBuf,
    /// The labels file.
    pub labels: PathBuf,
    /// What ran the model; `None` for a scores file.
    pub engine: Option<String>,
    pub classes: Vec<String>,
    /// The first point has the given thresholds. Further points: at 0.5, unless the first has it,
    /// and at the tuned thresholds, if there are any.
    pub points: Vec<OperatingPoint>,
    pub tuned: Option<TunedThresholds>,
    /// Samples that could not be evaluated.
    pub failures: Vec<Failure>,
    pub bootstrap: Bootstrap,
    /// Metadata of the model and options of the evaluation, as names and values.
    pub about: Vec<(String, String)>,
    pub(super) samples: EvaluatedSamples,
    /// Image files of the labelled samples; empty if a scores file has no images.
    pub(super) images: Vec<Sample>,
    pub(super) maps: OcclusionMaps,
}

/// Thresholds tuned on the labels of the evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct TunedThresholds {
    /// Tuned on all samples, for use on others.
    pub file: ThresholdFile,
    /// Folds of cross-fitting.
    pub folds: usize,
    /// Metrics on the samples that the thresholds were tuned on, without cross-fitting.
    pub apparent: Evaluation,
    /// Index of the cross-fitted operating point.
    point: usize,
}

impl EvalReport {
    pub(super) fn new(
        config: &EvalConfig,
        predictions: LabelledPredictions,
        ratios: Option<&ClassRatios>,
    ) -> Result<Self, EvalError> {
        let samples = EvaluatedSamples::select(&predictions, config.keep_argmax, |_| true)?;
        let fit = tune(config, &samples, ratios)?;
        let mut sets = vec![ThresholdSet::new(
            &predictions.threshold_name,
            &predictions.thresholds,
        )];
        if predictions.thresholds.iter().any(|t| *t != HALF) {
            sets.push(ThresholdSet::new("at 0.5", &vec![HALF; samples.classes]));
        }
        let mut tuned = None;
        if let Some(fit) = fit {
            tuned = Some(TunedThresholds::new(
                config,
                &fit,
                &samples,
                (sets.len(), &predictions.classes),
            )?);
            let method = config.tuning.as_ref().map_or("", ThresholdTuning::name);
            let folds = fold_count(config, samples.ids.len());
            sets.push(ThresholdSet {
                name: format!("tuned ({method}, {folds} folds)"),
                thresholds: fit.thresholds,
                decisions: Some(fit.cross_fitted),
            });
        }
        Ok(Self {
            about: about(config, &predictions),
            points: operating_points(sets, &samples, &config.bootstrap)?,
            subject: predictions.subject,
            labels: predictions.labels_path,
            engine: predictions.engine,
            classes: predictions.classes,
            tuned,
            failures: predictions.table.failures,
            bootstrap: config.bootstrap,
            samples,
            images: predictions.images,
            maps: OcclusionMaps::default(),
        })
    }

    /// Returns the metrics at the given thresholds.
    #[must_use]
    pub fn evaluation(&self) -> &Evaluation {
        // `new` always adds a first point.
        &self.points[0].evaluation
    }

    /// Returns the cross-fitted point of the tuned thresholds.
    #[must_use]
    pub fn tuned_point(&self) -> Option<&OperatingPoint> {
        self.tuned.as_ref().map(|tuned| &self.points[tuned.point])
    }

    /// Returns the macro-F1 of the tuned thresholds on their own labels minus the cross-fitted one.
    #[must_use]
    pub fn optimism(&self) -> Option<f64> {
        let cross_fitted = self.tuned_point()?.evaluation.macro_f1;
        let apparent = self.tuned.as_ref()?.apparent.macro_f1;
        Some(apparent - cross_fitted)
    }

    /// Returns the content of `metrics.json`: the metrics at the given thresholds with class names,
    /// `at_half` and `tuned` the same at other thresholds, and the failures.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut document = self.point_json(&self.points[0]);
        document["subject"] = json!(self.subject);
        document["labels"] = json!(self.labels);
        document["engine"] = json!(self.engine);
        let half = self.points.iter().skip(1).find(|p| p.name == "at 0.5");
        document["at_half"] = json!(half.map(|point| self.point_json(point)));
        document["tuned"] = json!(self.tuned.as_ref().map(|tuned| self.tuned_json(tuned)));
        let data = self.samples.data();
        let bins = data.map(|data| Calibration::of_all(&data).bins);
        document["calibration"] = json!(bins.unwrap_or_default());
        document["bootstrap"] = json!({"draws": self.bootstrap.draws, "seed": self.bootstrap.seed});
        let failure = |f: &Failure| json!({"id": f.id, "file": f.file, "error": f.error});
        document["failures"] = self.failures.iter().map(failure).collect();
        document
    }

    fn tuned_json(&self, tuned: &TunedThresholds) -> Value {
        let mut document = self.point_json(&self.points[tuned.point]);
        document["method"] = json!(tuned.file.method);
        document["keep_argmax"] = json!(tuned.file.keep_argmax);
        document["folds"] = json!(tuned.folds);
        document["thresholds"] = json!(tuned.file.thresholds);
        let apparent = &tuned.apparent;
        document["on_its_own_labels"] = json!({
            "macro_f1": apparent.macro_f1,
            "micro_f1": apparent.micro_f1,
            "hamming_loss": apparent.hamming_loss,
        });
        document["optimism"] = json!(self.optimism());
        document
    }

    fn point_json(&self, point: &OperatingPoint) -> Value {
        let evaluation = &point.evaluation;
        let mut document = json!(evaluation);
        document["at"] = json!(point.name);
        document["chance"]["best"] = json!(evaluation.chance.best());
        document["rare"]["coverage"] = json!(evaluation.rare.coverage());
        let intervals = point.intervals.as_ref();
        let interval = |select: fn(&Intervals) -> Value| intervals.map_or(Value::Null, select);
        document["macro_f1_interval"] = interval(|i| json!(i.macro_f1));
        document["micro_f1_interval"] = interval(|i| json!(i.micro_f1));
        for (number, name) in self.classes.iter().enumerate() {
            let class = &mut document["classes"][number];
            class["name"] = json!(name);
            class["support"] = json!(evaluation.classes[number].support());
            class["f1_interval"] = json!(intervals.map(|i| i.classes[number]));
        }
        document
    }
}

impl TunedThresholds {
    /// `point` is the index of the cross-fitted operating point.
    fn new(
        config: &EvalConfig,
        fit: &CrossFit,
        samples: &EvaluatedSamples,
        (point, classes): (usize, &[String]),
    ) -> Result<Self, EvalError> {
        let count = samples.ids.len();
        Ok(Self {
            apparent: evaluate_decisions(&samples.data()?, &fit.apparent, &fit.thresholds),
            file: ThresholdFile {
                method: config
                    .tuning
                    .as_ref()
                    .map_or("", ThresholdTuning::name)
                    .into(),
                keep_argmax: config.keep_argmax,
                samples: count,
                classes: classes.to_vec(),
                thresholds: fit.thresholds.clone(),
            },
            folds: fold_count(config, count),
            point,
        })
    }
}

/// Returns options and metadata for the report, as names and values.
fn about(config: &EvalConfig, predictions: &LabelledPredictions) -> Vec<(String, String)> {
    let text = |path: &PathBuf| path.display().to_string();
    let ratios = match &config.tuning {
        Some(ThresholdTuning::Ratio(path)) => Some(text(path)),
        _ => None,
    };
    let mut about = vec![
        ("evaluated".to_owned(), text(&predictions.subject)),
        ("labels".into(), text(&predictions.labels_path)),
    ];
    for (name, value) in [
        ("images", predictions.images_path.as_ref().map(text)),
        ("ids", config.ids.as_ref().map(text)),
        ("engine", predictions.engine.clone()),
        ("ratios", ratios),
    ] {
        about.extend(value.map(|value| (name.to_owned(), value)));
    }
    about.extend(predictions.about.iter().cloned());
    about.push(("thresholds".into(), predictions.threshold_name.clone()));
    if config.keep_argmax {
        about.push(("most probable class".into(), "always predicted".into()));
    }
    about.push((
        "intervals".into(),
        format!(
            "95 %; macro- and micro-F1: {} bootstrap draws, seed {}; classes: Wilson",
            config.bootstrap.draws, config.bootstrap.seed
        ),
    ));
    about.push((
        "program".into(),
        concat!("rgby ", env!("CARGO_PKG_VERSION")).into(),
    ));
    about
}

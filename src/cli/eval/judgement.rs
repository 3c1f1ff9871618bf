//! What `rgby eval` found out, as JSON and as files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::EvalArgs;
use super::answers::{Answers, Judged};
use super::overlays::{Hidden, Runner};
use super::page::write_page;
use crate::atomic_file::write_atomic;
use crate::data::LabelTable;
use crate::imaging::Sample;
use crate::metrics::{
    Bootstrap, Calibration, CrossFit, Decisions, Evaluation, Intervals, Labelled, intervals, judge,
    with_highest_kept,
};
use crate::model_metadata::ThresholdFile;
use crate::report::OperatingPoint;
use crate::score::{Failure, output};

/// The threshold that everybody compares at.
const HALF: f32 = 0.5;

/// How good a set of probabilities is.
pub struct Judgement {
    /// The model or the scores file.
    pub subject: PathBuf,
    /// The labels file.
    pub labels: PathBuf,
    /// What ran the model, if one did.
    pub engine: Option<String>,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// At the given thresholds; at 0.5, unless those are it; at the tuned ones, if asked for.
    pub points: Vec<OperatingPoint>,
    /// The tuned thresholds.
    pub tuned: Option<Tuned>,
    /// The samples that could not be judged.
    pub failures: Vec<Failure>,
    /// How the intervals were made.
    pub bootstrap: Bootstrap,
    /// What is known of the model or file and of how it was judged.
    pub about: Vec<(String, String)>,
    pub(super) judged: Judged,
    /// The images of all labelled samples, if there are any.
    pub(super) pictures: Vec<Sample>,
    /// The model, until it was asked where it looked, and what it said.
    pub(super) runner: Option<Runner>,
    pub(super) hidden: Hidden,
}

/// Thresholds that were tuned on the labels at hand.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// For use on other samples.
    pub file: ThresholdFile,
    /// Parts of the samples in cross-fitting.
    pub folds: usize,
    /// How good they look on the samples that they were tuned on.
    pub apparent: Evaluation,
    /// Which of the points is theirs, cross-fitted.
    point: usize,
}

impl Judgement {
    pub(super) fn new(
        args: &EvalArgs,
        answers: Answers,
        ratios: Option<&LabelTable>,
    ) -> anyhow::Result<Self> {
        let judged = Judged::of(&answers, |_| true)?;
        let data = judged.data()?;
        let kept;
        let decided = if args.keep_argmax {
            kept = with_highest_kept(&judged.probabilities, judged.classes);
            Labelled::new(&kept, &judged.targets, judged.classes).map_err(anyhow::Error::msg)?
        } else {
            data
        };
        let fit = args.tune(&decided, &judged.sets, ratios)?;
        let mut points = vec![Undecided::at(
            answers.threshold_name.clone(),
            &answers.thresholds,
        )];
        if answers.thresholds.iter().any(|t| *t != HALF) {
            points.push(Undecided::at("at 0.5".into(), &vec![HALF; judged.classes]));
        }
        let tuned = fit.map(|fit| {
            let (tuned, point) = Tuned::new(args, &answers, fit, &data, points.len());
            points.push(point);
            tuned
        });
        let points = decide(points, &data, &decided, &args.draws());
        Ok(Self {
            about: about(args, &answers),
            subject: answers.subject,
            labels: args.labels.clone(),
            engine: answers.engine,
            classes: answers.classes,
            points,
            tuned,
            failures: answers.table.failures,
            bootstrap: args.draws(),
            judged,
            pictures: answers.pictures,
            runner: answers.runner,
            hidden: Hidden::new(),
        })
    }

    /// At the given thresholds.
    #[must_use]
    pub fn evaluation(&self) -> &Evaluation {
        // There is always a first point.
        &self.points[0].evaluation
    }

    /// How much better tuned thresholds look on the labels that they were tuned on than they are.
    #[must_use]
    pub fn optimism(&self) -> Option<f64> {
        let tuned = self.tuned.as_ref()?;
        let honest = &self.points[tuned.point].evaluation;
        Some(tuned.apparent.macro_f1 - honest.macro_f1)
    }

    /// The tuned thresholds' point, cross-fitted.
    #[must_use]
    pub fn tuned_point(&self) -> Option<&OperatingPoint> {
        self.tuned.as_ref().map(|tuned| &self.points[tuned.point])
    }

    /// One document for programs: the evaluation at the given thresholds, its classes with their
    /// names; `at_half` and `tuned` the same at others; the failures.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut document = self.point_json(&self.points[0]);
        document["subject"] = json!(self.subject);
        document["labels"] = json!(self.labels);
        document["engine"] = json!(self.engine);
        let half = self.points.iter().skip(1).find(|p| p.name == "at 0.5");
        document["at_half"] = json!(half.map(|point| self.point_json(point)));
        document["tuned"] = json!(self.tuned.as_ref().map(|tuned| self.tuned_json(tuned)));
        let bins = self
            .judged
            .data()
            .map(|data| Calibration::of_all(&data).bins);
        document["calibration"] = json!(bins.unwrap_or_default());
        document["bootstrap"] = json!({"draws": self.bootstrap.draws, "seed": self.bootstrap.seed});
        let failure = |f: &Failure| json!({"id": f.id, "file": f.file, "error": f.error});
        document["failures"] = self.failures.iter().map(failure).collect();
        document
    }

    fn tuned_json(&self, tuned: &Tuned) -> Value {
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
        let of = |of: fn(&Intervals) -> Value| intervals.map_or(Value::Null, of);
        document["macro_f1_interval"] = of(|i| json!(i.macro_f1));
        document["micro_f1_interval"] = of(|i| json!(i.micro_f1));
        for (number, name) in self.classes.iter().enumerate() {
            let class = &mut document["classes"][number];
            class["name"] = json!(name);
            class["support"] = json!(evaluation.classes[number].support());
            class["f1_interval"] = json!(intervals.map(|i| i.classes[number]));
        }
        document
    }

    /// Writes `metrics.json`, `report.html`, `plots/`, with tuned thresholds `thresholds.json` and,
    /// if samples failed, `errors.csv` into the folder `out`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// The folder or a file cannot be written.
    pub fn write(&self, out: &Path) -> anyhow::Result<()> {
        let plots = out.join("plots");
        fs::create_dir_all(&plots)
            .with_context(|| format!("cannot make the folder {}", plots.display()))?;
        output::write_errors(&errors_path(out), &self.failures)?;
        if let Some(tuned) = &self.tuned {
            tuned.file.write(&out.join("thresholds.json"))?;
        }
        write_page(self, out)?;
        let document = format!("{:#}\n", self.to_json());
        write_atomic(&out.join("metrics.json"), document.as_bytes())?;
        Ok(())
    }

    /// The samples that could not be judged, or where the folder `out` lists them.
    #[must_use]
    pub fn failure_list(&self, out: Option<&Path>) -> String {
        let failed = self.failures.len();
        let all = failed + self.evaluation().samples;
        let head = format!("{failed} of {all} labelled samples could not be judged");
        if let Some(out) = out {
            return format!("{head}; they are listed in {}", errors_path(out).display());
        }
        self.failures.iter().fold(head + ":", |list, f| {
            let file = if f.file.is_empty() {
                String::new()
            } else {
                format!("{}: ", f.file)
            };
            format!("{list}\n  {}: {file}{}", f.id, f.error)
        })
    }
}

/// A point before its decisions are counted.
struct Undecided {
    name: String,
    thresholds: Vec<f32>,
    /// Decisions that do not follow from the thresholds alone.
    decisions: Option<Decisions>,
}

impl Undecided {
    fn at(name: String, thresholds: &[f32]) -> Self {
        Self {
            name,
            thresholds: thresholds.to_vec(),
            decisions: None,
        }
    }
}

/// Counts and resamples all points together.
fn decide(
    points: Vec<Undecided>,
    data: &Labelled,
    decided: &Labelled,
    bootstrap: &Bootstrap,
) -> Vec<OperatingPoint> {
    let mut judged: Vec<OperatingPoint> = points
        .into_iter()
        .map(|point| {
            let decisions = point.decisions;
            let decisions = decisions.unwrap_or_else(|| Decisions::at(decided, &point.thresholds));
            OperatingPoint {
                name: point.name,
                evaluation: judge(data, &decisions, &point.thresholds),
                decisions,
                intervals: None,
            }
        })
        .collect();
    let sets: Vec<&Decisions> = judged.iter().map(|point| &point.decisions).collect();
    let found = intervals(&sets, bootstrap).unwrap_or_default();
    for (point, intervals) in judged.iter_mut().zip(found) {
        point.intervals = Some(intervals);
    }
    judged
}

impl Tuned {
    fn new(
        args: &EvalArgs,
        answers: &Answers,
        fit: CrossFit,
        data: &Labelled,
        point: usize,
    ) -> (Self, Undecided) {
        let method = args.tune_thresholds.map_or("", |method| method.name());
        let folds = usize::from(args.folds).min(data.samples());
        let undecided = Undecided {
            name: format!("tuned ({method}, {folds} folds)"),
            thresholds: fit.thresholds.clone(),
            decisions: Some(fit.cross_fitted),
        };
        let tuned = Self {
            apparent: judge(data, &fit.apparent, &fit.thresholds),
            file: ThresholdFile {
                method: method.into(),
                keep_argmax: args.keep_argmax,
                samples: data.samples(),
                classes: answers.classes.clone(),
                thresholds: fit.thresholds,
            },
            folds,
            point,
        };
        (tuned, undecided)
    }
}

/// What was judged and how, for the report.
fn about(args: &EvalArgs, answers: &Answers) -> Vec<(String, String)> {
    let mut about = vec![
        ("judged".to_owned(), answers.subject.display().to_string()),
        ("labels".into(), args.labels.display().to_string()),
    ];
    let path = |path: &PathBuf| path.display().to_string();
    for (name, value) in [
        ("images", args.images.as_ref().map(path)),
        ("ids", args.ids.as_ref().map(path)),
        ("engine", answers.engine.clone()),
        ("ratios", args.ratios.as_ref().map(path)),
    ] {
        about.extend(value.map(|value| (name.to_owned(), value)));
    }
    about.extend(answers.about.iter().cloned());
    about.push(("decisions".into(), answers.threshold_name.clone()));
    if args.keep_argmax {
        about.push(("most probable class".into(), "always predicted".into()));
    }
    about.push((
        "intervals".into(),
        format!(
            "95 %; macro- and micro-F1: {} bootstrap draws, seed {}; classes: Wilson",
            args.bootstrap, args.seed
        ),
    ));
    about.push((
        "reported by".into(),
        concat!("rgby ", env!("CARGO_PKG_VERSION")).into(),
    ));
    about
}

fn errors_path(out: &Path) -> PathBuf {
    out.join("errors.csv")
}

//! Metrics of decisions and of the probabilities that they are based on.

use rayon::prelude::*;
use serde::Serialize;

use super::{Calibration, ClassOutcomes, Decisions, Labelled, Ranking, f1_score, mean, ratio};

/// A class is rare if it has positives, but in less than this share of the samples.
pub const RARE_SHARE: f64 = 0.005;

/// Metrics of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassMetrics {
    /// Decision threshold, 0–1. For cross-fitted decisions, the threshold tuned on all samples.
    pub threshold: f32,
    pub true_positives: usize,
    pub false_positives: usize,
    pub false_negatives: usize,
    pub true_negatives: usize,
    /// 0–1; 0 without predictions.
    pub precision: f64,
    /// 0–1; 0 without positives.
    pub recall: f64,
    /// 0–1; 0 without positives and predictions.
    pub f1: f64,
    /// Area under the precision-recall curve as a step function, 0–1; `None` without positives.
    pub average_precision: Option<f64>,
    /// Area under the ROC curve, 0–1; `None` without positives or without negatives.
    pub auroc: Option<f64>,
    /// Expected calibration error, 0–1; see [`Calibration`].
    pub calibration_error: f64,
}

impl ClassMetrics {
    /// Returns the number of samples that have the class.
    #[must_use]
    pub fn support(&self) -> usize {
        self.true_positives + self.false_negatives
    }
}

/// Metrics of a set of samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub samples: usize,
    /// Mean binary cross-entropy over all samples and classes.
    pub loss: f64,
    /// Mean F1 over all classes, 0–1.
    pub macro_f1: f64,
    /// Population standard deviation of F1 over all classes.
    pub f1_std: f64,
    pub f1_min: f64,
    pub f1_max: f64,
    /// F1 of all decisions pooled, 0–1.
    pub micro_f1: f64,
    /// Mean F1 over the classes with positives, 0–1; 0 if no class has positives.
    pub macro_f1_present: f64,
    /// Share of wrong decisions over all samples and classes, 0–1.
    pub hamming_loss: f64,
    /// Mean average precision over the classes with positives.
    pub mean_average_precision: Option<f64>,
    /// Mean area under the ROC curve over the classes with positives and negatives.
    pub mean_auroc: Option<f64>,
    /// Expected calibration error over all probabilities, 0–1; see [`Calibration`].
    pub calibration_error: f64,
    /// Mean of the classes' expected calibration errors, 0–1.
    pub mean_calibration_error: f64,
    pub rare: RareClasses,
    /// Expected macro-F1 of predictors that ignore the images.
    pub chance: ChanceLevel,
    /// In the model's order.
    pub classes: Vec<ClassMetrics>,
}

/// Counts of the rare classes; see [`RARE_SHARE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RareClasses {
    /// Number of rare classes.
    pub classes: usize,
    /// Number of rare classes with at least one true positive.
    pub found: usize,
}

impl RareClasses {
    fn count(classes: &[ClassMetrics], samples: usize) -> Self {
        let rare = |class: &&ClassMetrics| {
            let support = class.support();
            support > 0 && (support as f64) < RARE_SHARE * samples as f64
        };
        let rare: Vec<_> = classes.iter().filter(rare).collect();
        Self {
            classes: rare.len(),
            found: rare.iter().filter(|class| class.true_positives > 0).count(),
        }
    }

    /// Returns the share of rare classes that are found, 0–1; `None` without rare classes.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        (self.classes > 0).then(|| self.found as f64 / self.classes as f64)
    }
}

/// Expected macro-F1 of predictors that ignore the images.
///
/// Predicting a class of prevalence p at random with probability q has an expected precision of p
/// and an expected recall of q. Its F1 is about 2pq / (p + q).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ChanceLevel {
    /// Predicts every class for every sample: q = 1.
    pub all_positive: f64,
    /// Predicts each class as often as it occurs: q = p.
    pub class_frequency: f64,
}

impl ChanceLevel {
    /// Returns the higher of the two.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.all_positive.max(self.class_frequency)
    }
}

/// Evaluates `data` with one threshold per class.
///
/// # Panics
///
/// If the number of thresholds differs from the number of classes.
#[must_use]
pub fn evaluate(data: &Labelled, thresholds: &[f32]) -> Evaluation {
    evaluate_decisions(data, &Decisions::at(data, thresholds), thresholds)
}

/// Evaluates `decisions` and the probabilities in `data`.
///
/// The thresholds, one per class, are only reported.
#[must_use]
pub fn evaluate_decisions(
    data: &Labelled,
    decisions: &Decisions,
    thresholds: &[f32],
) -> Evaluation {
    let classes: Vec<_> = (0..data.classes())
        .into_par_iter()
        .map(|class| class_metrics(data, class, &decisions.classes()[class], thresholds[class]))
        .collect();
    let f1: Vec<f64> = classes.iter().map(|c| c.f1).collect();
    let macro_f1 = mean(f1.iter().copied());
    let present = classes.iter().filter(|c| c.support() > 0);
    let total = |count: fn(&ClassMetrics) -> usize| classes.iter().map(count).sum::<usize>();
    let (tp, fp, fn_) = (
        total(|c| c.true_positives),
        total(|c| c.false_positives),
        total(|c| c.false_negatives),
    );
    Evaluation {
        samples: data.samples(),
        loss: binary_cross_entropy(data),
        macro_f1,
        f1_std: mean(f1.iter().map(|x| (x - macro_f1).powi(2))).sqrt(),
        f1_min: f1.iter().copied().fold(f64::INFINITY, f64::min),
        f1_max: f1.iter().copied().fold(0.0, f64::max),
        micro_f1: f1_score(tp, fp, fn_),
        macro_f1_present: mean(present.map(|c| c.f1)),
        hamming_loss: ratio((fp + fn_) as f64, (data.samples() * data.classes()) as f64),
        mean_average_precision: mean_of_some(classes.iter().map(|c| c.average_precision)),
        mean_auroc: mean_of_some(classes.iter().map(|c| c.auroc)),
        calibration_error: Calibration::of_all(data).error,
        mean_calibration_error: mean(classes.iter().map(|c| c.calibration_error)),
        rare: RareClasses::count(&classes, data.samples()),
        chance: chance_level(data),
        classes,
    }
}

fn class_metrics(
    data: &Labelled,
    class: usize,
    outcomes: &ClassOutcomes,
    threshold: f32,
) -> ClassMetrics {
    let [tp, fp, fn_] = outcomes.counts();
    let ranking = Ranking::new(data, class);
    ClassMetrics {
        threshold,
        true_positives: tp,
        false_positives: fp,
        false_negatives: fn_,
        true_negatives: data.samples() - tp - fp - fn_,
        precision: ratio(tp as f64, (tp + fp) as f64),
        recall: ratio(tp as f64, (tp + fn_) as f64),
        f1: f1_score(tp, fp, fn_),
        average_precision: ranking.average_precision(),
        auroc: ranking.auroc(),
        calibration_error: Calibration::new(data.column(class)).error,
    }
}

/// Returns the mean of the defined values; `None` if there are none.
fn mean_of_some(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| mean(values.into_iter()))
}

/// Returns the mean binary cross-entropy.
fn binary_cross_entropy(data: &Labelled) -> f64 {
    let pairs = data.probabilities.iter().zip(data.targets);
    mean(pairs.map(|(p, t)| cross_entropy(*p, *t > 0.5)))
}

/// Returns the binary cross-entropy of one probability.
///
/// Each logarithm is clamped to at least −100, as in `PyTorch`'s `BCELoss`, so that one saturated
/// output does not make a mean infinite.
#[must_use]
pub fn cross_entropy(probability: f32, truth: bool) -> f64 {
    let p = f64::from(probability);
    let likelihood = if truth { p } else { 1.0 - p };
    -likelihood.ln().max(-100.0)
}

/// Returns the chance level of the macro-F1 on `data`; see [`ChanceLevel`].
#[must_use]
pub fn chance_level(data: &Labelled) -> ChanceLevel {
    let prevalence = |class| {
        let positives = data.column(class).filter(|(_, truth)| *truth).count();
        ratio(positives as f64, data.samples() as f64)
    };
    let prevalences: Vec<f64> = (0..data.classes).map(prevalence).collect();
    let f1 = |p: f64, q: f64| ratio(2.0 * p * q, p + q);
    ChanceLevel {
        all_positive: mean(prevalences.iter().map(|p| f1(*p, 1.0))),
        class_frequency: mean(prevalences.iter().map(|p| f1(*p, *p))),
    }
}

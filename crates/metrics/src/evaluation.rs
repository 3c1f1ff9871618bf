//! How good decisions are, and the probabilities behind them.

use rayon::prelude::*;
use serde::Serialize;

use super::{Calibration, Decisions, Labelled, Outcomes, Ranking, f1_score, mean, ratio};

/// A class is rare if it has positives, but in less than this share of the samples.
pub const RARE_SHARE: f64 = 0.005;

/// How a model did on one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassMetrics {
    /// A class is predicted where its probability is at least this. Where thresholds were
    /// cross-fitted, the one that was tuned on all samples.
    pub threshold: f32,
    /// Predicted and true.
    pub true_positives: usize,
    /// Predicted, but not true.
    pub false_positives: usize,
    /// True, but not predicted.
    pub false_negatives: usize,
    /// Neither.
    pub true_negatives: usize,
    /// Share of the predictions that are true, 0–1.
    pub precision: f64,
    /// Share of the true samples that are predicted, 0–1.
    pub recall: f64,
    /// Harmonic mean of precision and recall, 0–1.
    pub f1: f64,
    /// Area under the precision-recall steps, 0–1; `None` for a class without positives.
    pub average_precision: Option<f64>,
    /// Area under the ROC curve, 0–1; `None` for a class that no sample or every sample has.
    pub auroc: Option<f64>,
    /// Expected calibration error of its probabilities, 0–1; see [`Calibration`].
    pub calibration_error: f64,
}

impl ClassMetrics {
    /// Number of samples that have the class.
    #[must_use]
    pub fn support(&self) -> usize {
        self.true_positives + self.false_negatives
    }
}

/// How a model did on a set of samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Number of samples.
    pub samples: usize,
    /// Mean binary cross-entropy over all samples and classes.
    pub loss: f64,
    /// Mean F1 over all classes: the macro-F1.
    pub macro_f1: f64,
    /// Standard deviation of F1 over all classes (population).
    pub f1_std: f64,
    /// Smallest F1 of a class.
    pub f1_min: f64,
    /// Largest F1 of a class.
    pub f1_max: f64,
    /// F1 of all predictions pooled.
    pub micro_f1: f64,
    /// Mean F1 over the classes that have positives; 0 if none has.
    pub macro_f1_present: f64,
    /// Share of all decisions that are wrong, 0–1.
    pub hamming_loss: f64,
    /// Mean average precision over the classes that have positives.
    pub mean_average_precision: Option<f64>,
    /// Mean area under the ROC curve over the classes that have positives and negatives.
    pub mean_auroc: Option<f64>,
    /// Expected calibration error of all probabilities together, 0–1; see [`Calibration`].
    pub calibration_error: f64,
    /// Mean over the classes of theirs.
    pub mean_calibration_error: f64,
    /// How many of the rare classes are found at all.
    pub rare: RareClasses,
    /// What the macro-F1 would be without looking at the images.
    pub chance: Chance,
    /// Each class, in the model's order.
    pub classes: Vec<ClassMetrics>,
}

/// The classes that few samples have, less than [`RARE_SHARE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RareClasses {
    /// How many there are.
    pub classes: usize,
    /// How many of them are predicted rightly at least once.
    pub found: usize,
}

impl RareClasses {
    fn of(classes: &[ClassMetrics], samples: usize) -> Self {
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

    /// Share of the rare classes that are found; `None` if there are none.
    #[must_use]
    pub fn coverage(&self) -> Option<f64> {
        (self.classes > 0).then(|| self.found as f64 / self.classes as f64)
    }
}

/// Expected macro-F1 of predictors that do not look at the images.
///
/// A class of prevalence p that is predicted at random with probability q has an expected
/// precision of p and an expected recall of q, so its F1 is about 2pq / (p + q).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Chance {
    /// Every class for every sample: q = 1.
    pub all_positive: f64,
    /// Each class as often as it occurs: q = p.
    pub class_frequency: f64,
}

impl Chance {
    /// The better of the two.
    #[must_use]
    pub fn best(&self) -> f64 {
        self.all_positive.max(self.class_frequency)
    }
}

/// Judges `data` with one threshold a class.
///
/// # Panics
///
/// If there is not one threshold for each class.
#[must_use]
pub fn evaluate(data: &Labelled, thresholds: &[f32]) -> Evaluation {
    judge(data, &Decisions::at(data, thresholds), thresholds)
}

/// Judges `decisions`, however they were made, and the probabilities in `data`. The thresholds, one
/// a class, are only reported.
#[must_use]
pub fn judge(data: &Labelled, decisions: &Decisions, thresholds: &[f32]) -> Evaluation {
    let classes: Vec<_> = (0..data.classes())
        .into_par_iter()
        .map(|class| class_metrics(data, class, &decisions.classes()[class], thresholds[class]))
        .collect();
    let f1: Vec<f64> = classes.iter().map(|c| c.f1).collect();
    let macro_f1 = mean(f1.iter().copied());
    let present = classes.iter().filter(|c| c.support() > 0);
    let total = |count: fn(&ClassMetrics) -> usize| classes.iter().map(count).sum::<usize>();
    let (hits, alarms, misses) = (
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
        micro_f1: f1_score(hits, alarms, misses),
        macro_f1_present: mean(present.map(|c| c.f1)),
        hamming_loss: ratio(
            (alarms + misses) as f64,
            (data.samples() * data.classes()) as f64,
        ),
        mean_average_precision: mean_of_some(classes.iter().map(|c| c.average_precision)),
        mean_auroc: mean_of_some(classes.iter().map(|c| c.auroc)),
        calibration_error: Calibration::of_all(data).error,
        mean_calibration_error: mean(classes.iter().map(|c| c.calibration_error)),
        rare: RareClasses::of(&classes, data.samples()),
        chance: chance(data),
        classes,
    }
}

fn class_metrics(
    data: &Labelled,
    class: usize,
    outcomes: &Outcomes,
    threshold: f32,
) -> ClassMetrics {
    let (tp, fp, missed) = (
        outcomes.hits.len(),
        outcomes.false_alarms.len(),
        outcomes.misses.len(),
    );
    let ranking = Ranking::new(data, class);
    ClassMetrics {
        threshold,
        true_positives: tp,
        false_positives: fp,
        false_negatives: missed,
        true_negatives: data.samples() - tp - fp - missed,
        precision: ratio(tp as f64, (tp + fp) as f64),
        recall: ratio(tp as f64, (tp + missed) as f64),
        f1: f1_score(tp, fp, missed),
        average_precision: ranking.average_precision(),
        auroc: ranking.auroc(),
        calibration_error: Calibration::of(data.column(class)).error,
    }
}

/// The mean of what there is, `None` of nothing.
fn mean_of_some(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| mean(values.into_iter()))
}

/// Mean binary cross-entropy. Each logarithm is held at −100 or above, as `PyTorch`'s `BCELoss`
/// does, so that one saturated output does not make the mean infinite.
fn binary_cross_entropy(data: &Labelled) -> f64 {
    let pairs = data.probabilities.iter().zip(data.targets);
    mean(pairs.map(|(p, t)| cross_entropy(*p, *t > 0.5)))
}

/// That of one probability.
pub fn cross_entropy(probability: f32, truth: bool) -> f64 {
    let p = f64::from(probability);
    let right = if truth { p } else { 1.0 - p };
    -right.ln().max(-100.0)
}

/// What the macro-F1 of `data` would be by chance; see [`Chance`].
#[must_use]
pub fn chance(data: &Labelled) -> Chance {
    let prevalence = |class| {
        let positives = data.column(class).filter(|(_, truth)| *truth).count();
        ratio(positives as f64, data.samples() as f64)
    };
    let prevalences: Vec<f64> = (0..data.classes).map(prevalence).collect();
    let f1 = |p: f64, q: f64| ratio(2.0 * p * q, p + q);
    Chance {
        all_positive: mean(prevalences.iter().map(|p| f1(*p, 1.0))),
        class_frequency: mean(prevalences.iter().map(|p| f1(*p, *p))),
    }
}

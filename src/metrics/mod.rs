//! Multi-label metrics from probabilities and targets, as scikit-learn defines them.
//!
//! Where a ratio is 0/0 it counts as 0 (`zero_division=0`). All sums are in float64.

mod ranking;

use serde::Serialize;

use ranking::average_precision;
pub use ranking::tune_thresholds;

/// Probabilities and targets of the same samples and classes.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    probabilities: &'a [f32],
    targets: &'a [f32],
    classes: usize,
}

impl<'a> Labelled<'a> {
    /// Pairs `probabilities` with `targets`: both `[samples, classes]`, row by row;
    /// probabilities 0–1, targets 0 or 1.
    ///
    /// # Errors
    ///
    /// A sentence that says which of the two does not fit, and where.
    pub fn new(
        probabilities: &'a [f32],
        targets: &'a [f32],
        classes: usize,
    ) -> Result<Self, String> {
        let (len, wanted) = (probabilities.len(), targets.len());
        if classes == 0 || len != wanted || len % classes != 0 {
            return Err(format!(
                "{len} probabilities and {wanted} targets do not make rows of {classes} classes"
            ));
        }
        let place = |at: usize| format!("sample {}, class {}", at / classes, at % classes);
        if let Some(at) = probabilities.iter().position(|p| !(0.0..=1.0).contains(p)) {
            return Err(format!(
                "{}: {} is not a probability",
                place(at),
                probabilities[at]
            ));
        }
        #[expect(clippy::float_cmp, reason = "targets are exactly 0 or 1")]
        if let Some(at) = targets.iter().position(|t| *t != 0.0 && *t != 1.0) {
            return Err(format!(
                "{}: the target {} is not 0 or 1",
                place(at),
                targets[at]
            ));
        }
        Ok(Self {
            probabilities,
            targets,
            classes,
        })
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.probabilities.len() / self.classes
    }

    /// Probability and truth of each sample for one class.
    fn column(&self, class: usize) -> impl Iterator<Item = (f32, bool)> {
        let pairs = self.probabilities.iter().zip(self.targets);
        pairs
            .skip(class)
            .step_by(self.classes)
            .map(|(p, t)| (*p, *t > 0.5))
    }
}

/// How a model did on one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassMetrics {
    /// A class is predicted where its probability is at least this.
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
    /// Mean average precision over the classes that have positives.
    pub mean_average_precision: Option<f64>,
    /// What the macro-F1 would be without looking at the images.
    pub chance: Chance,
    /// Each class, in the model's order.
    pub classes: Vec<ClassMetrics>,
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
    assert_eq!(thresholds.len(), data.classes, "one threshold a class");
    let classes: Vec<_> = thresholds
        .iter()
        .enumerate()
        .map(|(class, t)| class_metrics(data, class, *t))
        .collect();
    let f1: Vec<f64> = classes.iter().map(|c| c.f1).collect();
    let macro_f1 = mean(f1.iter().copied());
    let present = classes.iter().filter(|c| c.average_precision.is_some());
    let precisions: Vec<f64> = classes.iter().filter_map(|c| c.average_precision).collect();
    let total = |count: fn(&ClassMetrics) -> usize| classes.iter().map(count).sum::<usize>();
    Evaluation {
        samples: data.samples(),
        loss: binary_cross_entropy(data),
        macro_f1,
        f1_std: mean(f1.iter().map(|x| (x - macro_f1).powi(2))).sqrt(),
        f1_min: f1.iter().copied().fold(f64::INFINITY, f64::min),
        f1_max: f1.iter().copied().fold(0.0, f64::max),
        micro_f1: f1_score(
            total(|c| c.true_positives),
            total(|c| c.false_positives),
            total(|c| c.false_negatives),
        ),
        macro_f1_present: mean(present.map(|c| c.f1)),
        mean_average_precision: (!precisions.is_empty()).then(|| mean(precisions.into_iter())),
        chance: chance(data),
        classes,
    }
}

fn class_metrics(data: &Labelled, class: usize, threshold: f32) -> ClassMetrics {
    let (mut tp, mut fp, mut missed, mut tn) = (0, 0, 0, 0);
    for (probability, truth) in data.column(class) {
        match (probability >= threshold, truth) {
            (true, true) => tp += 1,
            (true, false) => fp += 1,
            (false, true) => missed += 1,
            (false, false) => tn += 1,
        }
    }
    ClassMetrics {
        threshold,
        true_positives: tp,
        false_positives: fp,
        false_negatives: missed,
        true_negatives: tn,
        precision: ratio(tp as f64, (tp + fp) as f64),
        recall: ratio(tp as f64, (tp + missed) as f64),
        f1: f1_score(tp, fp, missed),
        average_precision: average_precision(data, class),
    }
}

/// Mean binary cross-entropy. Each logarithm is held at −100 or above, as `PyTorch`'s `BCELoss`
/// does, so that one saturated output does not make the mean infinite.
#[must_use]
pub fn binary_cross_entropy(data: &Labelled) -> f64 {
    let log = |p: f64| p.ln().max(-100.0);
    mean(data.probabilities.iter().zip(data.targets).map(|(p, t)| {
        let (p, t) = (f64::from(*p), f64::from(*t));
        -(t * log(p) + (1.0 - t) * log(1.0 - p))
    }))
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

fn f1_score(true_positives: usize, false_positives: usize, false_negatives: usize) -> f64 {
    let twice = 2.0 * true_positives as f64;
    ratio(twice, twice + (false_positives + false_negatives) as f64)
}

/// `part / whole`, or 0 if there is no whole.
fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// The mean, or 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    ratio(sum, count)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        classes: usize,
        probabilities: Vec<f32>,
        targets: Vec<f32>,
        thresholds: Vec<f32>,
        tuned_thresholds: Vec<f32>,
        evaluation: Value,
        tuned: Value,
    }

    /// Compares two JSON documents, numbers to 1e-9.
    fn assert_same(ours: &Value, golden: &Value, path: &str) {
        match (ours, golden) {
            (Value::Object(a), Value::Object(b)) => {
                assert_eq!(
                    a.len(),
                    b.len(),
                    "{path}: {:?} for {:?}",
                    a.keys(),
                    b.keys()
                );
                for (key, value) in b {
                    assert_same(&ours[key], value, &format!("{path}.{key}"));
                }
            }
            (Value::Array(a), Value::Array(b)) => {
                assert_eq!(a.len(), b.len(), "{path}");
                for (i, value) in b.iter().enumerate() {
                    assert_same(&a[i], value, &format!("{path}[{i}]"));
                }
            }
            (Value::Number(a), Value::Number(b)) => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                assert!(
                    (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                    "{path}: {a} for {b}"
                );
            }
            _ => assert_eq!(ours, golden, "{path}"),
        }
    }

    #[test]
    fn everything_agrees_with_scikit_learn() {
        let golden = include_str!("../../tests/golden/metrics.json");
        let mut golden: Value = serde_json::from_str(golden).unwrap();
        let cases: Vec<Case> = serde_json::from_value(golden["cases"].take()).unwrap();
        assert!(cases.len() >= 5);
        for case in cases {
            let data = Labelled::new(&case.probabilities, &case.targets, case.classes).unwrap();
            let judge = |t: &[f32]| serde_json::to_value(evaluate(&data, t)).unwrap();
            assert_same(&judge(&case.thresholds), &case.evaluation, &case.name);
            let tuned = tune_thresholds(&data);
            assert_eq!(tuned, case.tuned_thresholds, "{}", case.name);
            assert_same(&judge(&tuned), &case.tuned, &case.name);
        }
    }

    #[test]
    fn chance_is_what_its_predictors_reach() {
        // One class of prevalence 1/4: all-positive has precision 1/4 and recall 1.
        let data = Labelled::new(&[1.0; 4], &[1.0, 0.0, 0.0, 0.0], 1).unwrap();
        let evaluation = evaluate(&data, &[0.5]);
        assert!((evaluation.macro_f1 - 0.4).abs() < 1e-12);
        assert!((evaluation.chance.all_positive - evaluation.macro_f1).abs() < 1e-12);
        assert!((evaluation.chance.class_frequency - 0.25).abs() < 1e-12);
        assert!((evaluation.chance.best() - 0.4).abs() < 1e-12);
    }

    #[test]
    fn input_that_does_not_fit_is_named() {
        for (probabilities, targets, classes, wanted) in [
            (
                &[0.5, 0.5][..],
                &[1.0][..],
                1,
                "2 probabilities and 1 targets",
            ),
            (&[0.5, 0.5, 0.5], &[1.0, 0.0, 0.0], 2, "rows of 2"),
            (&[], &[], 0, "rows of 0"),
            (&[0.5, f32::NAN], &[1.0, 0.0], 1, "sample 1, class 0: NaN"),
            (&[0.5, 1.5], &[1.0, 0.0], 2, "sample 0, class 1: 1.5"),
            (&[0.5, 0.5], &[1.0, 0.7], 2, "target 0.7"),
        ] {
            let error = Labelled::new(probabilities, targets, classes).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn no_samples_are_no_trouble() {
        let data = Labelled::new(&[], &[], 3).unwrap();
        let evaluation = evaluate(&data, &[0.5; 3]);
        assert!(
            evaluation.macro_f1 == 0.0 && evaluation.loss == 0.0,
            "{evaluation:?}"
        );
        assert_eq!(evaluation.mean_average_precision, None);
        assert_eq!(tune_thresholds(&data), [0.5; 3]);
    }
}

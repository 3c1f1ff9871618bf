//! Metrics compared with scikit-learn, and invalid input.

use serde::Deserialize;
use serde_json::Value;

use super::*;

#[derive(Deserialize)]
struct MetricsCase {
    name: String,
    classes: usize,
    probabilities: Vec<f32>,
    targets: Vec<f32>,
    thresholds: Vec<f32>,
    tuned_thresholds: Vec<f32>,
    evaluation: Value,
    tuned: Value,
}

/// Compares two JSON documents, numbers with a tolerance of 1e-9.
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
fn matches_scikit_learn() {
    let golden = include_str!("../../../tests/golden/metrics.json");
    let mut golden: Value = serde_json::from_str(golden).unwrap();
    let cases: Vec<MetricsCase> = serde_json::from_value(golden["cases"].take()).unwrap();
    assert!(cases.len() >= 5);
    for case in cases {
        let data = Labelled::new(&case.probabilities, &case.targets, case.classes).unwrap();
        let metrics = |t: &[f32]| serde_json::to_value(evaluate(&data, t)).unwrap();
        assert_same(&metrics(&case.thresholds), &case.evaluation, &case.name);
        let tuned = tune_thresholds(&data);
        assert_eq!(tuned, case.tuned_thresholds, "{}", case.name);
        assert_same(&metrics(&tuned), &case.tuned, &case.name);
    }
}

#[test]
fn chance_level_matches_constant_predictors() {
    // One class of prevalence 1/4: all-positive has precision 1/4 and recall 1.
    let data = Labelled::new(&[1.0; 4], &[1.0, 0.0, 0.0, 0.0], 1).unwrap();
    let evaluation = evaluate(&data, &[0.5]);
    assert!((evaluation.macro_f1 - 0.4).abs() < 1e-12);
    assert!((evaluation.chance.all_positive - evaluation.macro_f1).abs() < 1e-12);
    assert!((evaluation.chance.class_frequency - 0.25).abs() < 1e-12);
    assert!((evaluation.chance.best() - 0.4).abs() < 1e-12);
}

#[test]
fn invalid_input_is_reported_with_its_place() {
    for (probabilities, targets, classes, expected) in [
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
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn accepts_zero_samples() {
    let data = Labelled::new(&[], &[], 3).unwrap();
    let evaluation = evaluate(&data, &[0.5; 3]);
    assert!(
        evaluation.macro_f1 == 0.0 && evaluation.loss == 0.0,
        "{evaluation:?}"
    );
    assert_eq!(evaluation.mean_average_precision, None);
    assert_eq!(tune_thresholds(&data), [0.5; 3]);
}

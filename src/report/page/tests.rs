//! The page of an evaluation on edge cases.

use super::*;
use crate::metrics::{Bootstrap, evaluate_decisions, intervals};

/// Returns a page with `samples` samples and `classes` classes. The first class has no positives, the
/// second no negatives.
fn page_of(samples: usize, classes: usize) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("plots")).unwrap();
    let names: Vec<String> = (0..classes).map(|class| format!("Class {class}")).collect();
    let probabilities: Vec<f32> = (0..samples * classes)
        .map(|i| (i % 7) as f32 / 6.0)
        .collect();
    let targets: Vec<f32> = (0..samples * classes)
        .map(|i| match i % classes {
            0 => 0.0,
            1 => 1.0,
            _ => (i / classes).is_multiple_of(3).into(),
        })
        .collect();
    let data = Labelled::new(&probabilities, &targets, classes).unwrap();
    let decisions = Decisions::at(&data, &vec![0.5; classes]);
    let found = intervals(&[&decisions], &Bootstrap::default());
    let points = [OperatingPoint {
        name: "at 0.5".into(),
        evaluation: evaluate_decisions(&data, &decisions, &vec![0.5; classes]),
        decisions,
        intervals: found.map(|mut found| found.remove(0)),
    }];
    let cards = extreme_samples(&data, 3).map(|extreme| {
        let card = |(sample, _)| SampleCard {
            sample,
            id: format!("id {sample}"),
            picture: Some(vec![1, 2, 3]),
            overlay: Some(vec![4]),
            ..SampleCard::default()
        };
        extreme.into_iter().map(card).collect::<Vec<_>>()
    });
    let [wrong, uncertain] = cards;
    let page = EvaluationPage {
        subject: "model.onnx".into(),
        classes: &names,
        data,
        points: &points,
        remarks: vec!["A & B".into()],
        samples: vec![("Most wrong", "", wrong), ("Most uncertain", "", uncertain)],
        about: vec![("labels".into(), "a<b".into())],
    };
    page.write(dir.path()).unwrap();
    let charts = std::fs::read_dir(dir.path().join("plots")).unwrap();
    for chart in charts {
        let text = std::fs::read_to_string(chart.unwrap().path()).unwrap();
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    }
    let text = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(
        !text.contains("NaN") && !text.contains("inf\""),
        "{samples}×{classes}"
    );
    text
}

#[test]
fn writes_pages_of_all_sizes() {
    for (samples, classes) in [(1, 1), (1, 3), (2, 2), (50, 4), (20, 130)] {
        let page = page_of(samples, classes);
        assert!(page.contains("Evaluation of model.onnx"));
        assert_eq!(page.contains("The 60 most frequent of 130"), classes == 130);
        assert!(page.contains("a&lt;b") && page.contains("A &amp; B"));
        let pictures = page.matches("data:image/png;base64,AQID").count();
        assert_eq!(pictures, 2 * samples.min(3));
        assert_eq!(page.matches("class=\"overlay\"").count(), pictures);
    }
}

#[test]
fn selects_highest_loss_and_highest_entropy() {
    let probabilities = [0.99, 0.5, 0.2, 0.9];
    let data = Labelled::new(&probabilities, &[0.0, 1.0, 0.0, 1.0], 1).unwrap();
    let [wrong, uncertain] = extreme_samples(&data, 2);
    assert_eq!(wrong.iter().map(|(s, _)| *s).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        uncertain.iter().map(|(s, _)| *s).collect::<Vec<_>>(),
        [1, 2]
    );
    assert!((uncertain[0].1 - 1.0).abs() < 1e-9);
}

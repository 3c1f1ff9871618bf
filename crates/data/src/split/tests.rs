//! Tests of splits: sizes, class balance, files and text.

use std::fs;

use rand::RngExt;
use serde_json::Value;

use super::stratified::stratify;
use super::*;
use crate::random::{Purpose, generator};
use crate::tests::labelled;
use rgby_common::labels::HPA_COUNTS;

/// Splits `n` samples without classes.
fn split(split: &Split, n: usize, seed: u64) -> SplitIndices {
    let dataset = labelled(vec![Vec::new(); n], 1);
    split.split(&dataset, seed).unwrap()
}

fn fold(text: &str) -> Split {
    text.parse().unwrap()
}

#[test]
fn third_fold_has_the_sizes_of_the_reference_experiments() {
    let (train, valid) = split(&Split::ThirdFold, 31_072, 0);
    assert_eq!((train.len(), valid.len()), (20_715, 10_357));
    assert_eq!(
        (train[0], train[20_714], valid[0], valid[10_356]),
        (0, 20_714, 20_715, 31_071)
    );
}

#[test]
fn first_folds_are_larger_if_the_size_is_not_divisible() {
    for (n, fold) in [(6, 2), (7, 2), (8, 2), (9, 3), (2, 0), (0, 0)] {
        let (train, valid) = split(&Split::ThirdFold, n, 0);
        assert_eq!((train.len(), valid.len()), (n - fold, fold));
    }
}

#[test]
fn none_uses_all_samples_for_training() {
    assert_eq!(split(&Split::None, 3, 0), (vec![0, 1, 2], vec![]));
}

#[test]
fn random_is_a_partition_by_seed() {
    let random = Split::Random { fraction: 0.2 };
    let (train, valid) = split(&random, 101, 7);
    assert_eq!((train.len(), valid.len()), (81, 20));
    assert_partition(&[train, valid.clone()], 101);
    assert_eq!(split(&random, 101, 7).1, valid);
    assert_ne!(split(&random, 101, 8).1, valid);
}

fn assert_partition(parts: &[Vec<usize>], n: usize) {
    assert!(parts.iter().all(|part| part.is_sorted()));
    let mut all = parts.concat();
    all.sort_unstable();
    assert_eq!(all, (0..n).collect::<Vec<_>>());
}

#[test]
fn folds_are_a_partition_by_seed() {
    for kind in ["kfold", "stratified"] {
        for n in [0, 3, 23] {
            let folds: Vec<SplitIndices> = (1..=5)
                .map(|i| split(&fold(&format!("{kind}:{i}/5")), n, 7))
                .collect();
            let valid: Vec<_> = folds.iter().map(|(_, valid)| valid.clone()).collect();
            assert_partition(&valid, n);
            for (train, valid) in folds {
                assert_partition(&[train, valid.clone()], n);
                assert!((n / 5..=n.div_ceil(5)).contains(&valid.len()), "{kind} {n}");
            }
        }
        let third = fold(&format!("{kind}:3/5"));
        assert_eq!(split(&third, 23, 7), split(&third, 23, 7));
        assert_ne!(split(&third, 23, 7), split(&third, 23, 8), "{kind}");
        assert_ne!(split(&third, 23, 7).1, (10..15).collect::<Vec<_>>());
    }
}

/// Counts the samples of each fold and class.
fn counts(targets: &[Vec<u16>], folds: &[usize], (k, classes): (usize, usize)) -> FoldCounts {
    let mut counts = FoldCounts {
        labels: vec![vec![0; classes]; k],
        sizes: vec![0; k],
    };
    for (classes, &fold) in targets.iter().zip(folds) {
        counts.sizes[fold] += 1;
        for &class in classes {
            counts.labels[fold][usize::from(class)] += 1;
        }
    }
    counts
}

struct FoldCounts {
    /// `[folds][classes]`.
    labels: Vec<Vec<usize>>,
    sizes: Vec<usize>,
}

impl FoldCounts {
    /// Maximum difference between folds for each class.
    fn spread(&self) -> Vec<usize> {
        let of_class = |class: usize| self.labels.iter().map(move |fold| fold[class]);
        let spread =
            |class| of_class(class).max().unwrap_or(0) - of_class(class).min().unwrap_or(0);
        (0..self.labels[0].len()).map(spread).collect()
    }
}

#[test]
fn finds_a_perfect_stratification_if_one_exists() {
    for (patterns, classes) in [
        // Single, nested and overlapping classes, and samples without class.
        (vec![vec![0], vec![1], vec![2]], 3),
        (vec![vec![0], vec![0, 1], vec![0, 1, 2]], 3),
        (vec![vec![0, 3], vec![1, 3], vec![2, 3], vec![]], 4),
    ] {
        for (k, seed) in [(2, 0), (3, 1), (5, 2), (5, 3)] {
            let copies = patterns.iter().flat_map(|p| vec![p.clone(); 4 * k]);
            let targets: Vec<_> = copies.collect();
            let folds = stratify(&targets, classes, k, seed);
            let counts = counts(&targets, &folds, (k, classes));
            assert_eq!(counts.spread(), vec![0; classes], "{patterns:?}, {k} folds");
            assert_eq!(counts.sizes, vec![targets.len() / k; k]);
        }
    }
}

#[test]
fn spreads_a_class_with_fewer_samples_than_folds() {
    let mut targets = vec![vec![0]; 97];
    targets.extend([vec![0, 1], vec![0, 1], vec![0, 1]]);
    for seed in 0..20 {
        let folds = stratify(&targets, 2, 5, seed);
        let counts = counts(&targets, &folds, (5, 2));
        assert_eq!(counts.spread(), [0, 1]);
        assert_eq!(counts.sizes, [20; 5]);
    }
}

/// Labels with the class frequencies of the Human Protein Atlas, drawn independently. Some samples
/// have no class.
fn hpa_like(n: usize) -> Vec<Vec<u16>> {
    let mut rng = generator(5, Purpose::Order, [0; 2]);
    let sample = |_| {
        let classes = HPA_COUNTS.iter().zip(0..);
        classes
            .filter(|(count, _)| rng.random::<f64>() < f64::from(**count) / 31_072.0)
            .map(|(_, class)| class)
            .collect()
    };
    (0..n).map(sample).collect()
}

#[test]
fn stratifies_hpa_like_labels_ten_times_better_than_random_folds() {
    let targets = hpa_like(31_072);
    let shape = (5, 28);
    let stratified = stratify(&targets, 28, 5, 1);
    let stratified = counts(&targets, &stratified, shape);
    let random = fold::contiguous_folds(&shuffled(targets.len(), 1, K_FOLD), 5);
    let random = counts(&targets, &random, shape);
    for size in stratified
        .sizes
        .iter()
        .map(|&size| size as f64 / (31_072.0 / 5.0))
    {
        assert!((0.99..=1.01).contains(&size), "{size}");
    }
    let total = |counts: &FoldCounts| counts.spread().iter().sum::<usize>();
    let (stratified, random) = (total(&stratified), total(&random));
    assert!(10 * stratified < random, "{stratified} against {random}");
}

/// Generated by `tests/golden/split.py` with its own labels.
#[test]
fn class_spread_matches_another_implementation() {
    let text = include_str!("../../../../tests/golden/split.json");
    let golden: Value = serde_json::from_str(text).unwrap();
    let targets: Vec<Vec<u16>> = serde_json::from_value(golden["targets"].clone()).unwrap();
    let expected: Vec<usize> = serde_json::from_value(golden["spread"].clone()).unwrap();
    for seed in 0..5 {
        let folds = stratify(&targets, 28, 5, seed);
        let counts = counts(&targets, &folds, (5, 28));
        for (class, (found, expected)) in counts.spread().iter().zip(&expected).enumerate() {
            assert!(*found <= expected + 1, "class {class}: {found}, {expected}");
        }
        // The folds of the golden have 291 to 318 samples: class balance has priority over size.
        let in_range = |size: &usize| (270..=330).contains(size);
        assert!(counts.sizes.iter().all(in_range), "{:?}", counts.sizes);
    }
}

#[test]
fn text_round_trips_and_invalid_text_is_rejected() {
    for text in [
        "none",
        "third-fold",
        "random:0.2",
        "kfold:1/5",
        "stratified:10/10",
        "file:a b/c:d.csv",
    ] {
        assert_eq!(text.parse::<Split>().unwrap().to_string(), text);
        let json = format!("\"{text}\"");
        let split: Split = serde_json::from_str(&json).unwrap();
        assert_eq!(serde_json::to_string(&split).unwrap(), json);
    }
    for text in [
        "",
        "third",
        "none:",
        "random",
        "random:",
        "random:0",
        "random:1",
        "random:NaN",
        "kfold",
        "kfold:0/5",
        "kfold:6/5",
        "kfold:1/1",
        "kfold:1/101",
        "stratified:5",
        "stratified:1/5/2",
        "file:",
    ] {
        let error = text.parse::<Split>().unwrap_err().to_string();
        assert!(error.contains("random:0.2"), "{error}");
    }
}

#[test]
fn split_files_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("split.csv");
    let dataset = labelled(vec![Vec::new(); 9], 1);
    let (train, valid) = fold("kfold:2/4").split(&dataset, 3).unwrap();
    write_split(&path, &dataset, &train, &valid).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("Id,Fold\ns0,"), "{text}");
    let again = Split::File(path).split(&dataset, 99).unwrap();
    assert_eq!(again, (train, valid));
}

#[test]
fn invalid_split_files_are_rejected_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("split.csv");
    let dataset = labelled(vec![Vec::new(); 3], 1);
    let split = Split::File(path.clone());
    let missing = split.split(&dataset, 0).unwrap_err().to_string();
    assert!(missing.contains("split.csv"), "{missing}");
    for (text, wanted) in [
        ("", "has no column `Id`"),
        ("Id,Part\ns0,train\n", "has no column `Fold`"),
        (
            "Id,Fold\ns0,train\nx,valid\n",
            "line 3: the labels file has no sample `x`",
        ),
        (
            "Id,Fold\ns0,train\ns0,valid\n",
            "line 3: the sample `s0` was already on line 2",
        ),
        (
            "Id,Fold\ns0,test\n",
            "line 2: `test` is not a part of a split\nhint: write `train`",
        ),
        (
            "Id,Fold\ns1,valid\n",
            "no line for 2 of the 3 samples of the labels file: `s0`, `s2`\nhint",
        ),
        ("Id,Fold\ns1\n", "line: 2"),
    ] {
        fs::write(&path, text).unwrap();
        let error = split.split(&dataset, 0).unwrap_err().to_string();
        assert!(
            error.contains("split.csv") && error.contains(wanted),
            "{error}"
        );
    }
    fs::write(&path, b"Id,Fold\ns0,tr\xffain\n").unwrap();
    let error = split.split(&dataset, 0).unwrap_err().to_string();
    assert!(error.to_lowercase().contains("utf-8"), "{error}");
    fs::write(&path, "Fold,Id,Note\nvalid, s2 ,x\ntrain,s0,\ntrain,s1,\n").unwrap();
    assert_eq!(split.split(&dataset, 0).unwrap(), (vec![0, 1], vec![2]));
}

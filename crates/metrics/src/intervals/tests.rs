//! Intervals compared with `SciPy`, and their coverage of the truth.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Labelled, evaluate};
use super::*;

#[derive(Deserialize)]
struct IntervalGolden {
    wilson: Vec<WilsonCase>,
    classes: usize,
    targets: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    bootstrap: Value,
}

#[derive(Deserialize)]
struct WilsonCase {
    counts: [usize; 3],
    interval: [f64; 2],
}

fn golden() -> IntervalGolden {
    serde_json::from_str(include_str!("../../../../tests/golden/intervals.json")).unwrap()
}

fn assert_near(ours: Interval, golden: &Value, tolerance: f64) {
    for (ours, golden) in [ours.low, ours.high].iter().zip(golden.as_array().unwrap()) {
        let golden = golden.as_f64().unwrap();
        assert!((ours - golden).abs() <= tolerance, "{ours} for {golden}");
    }
}

#[test]
fn class_interval_matches_wilson() {
    for WilsonCase { counts, interval } in golden().wilson {
        let list = |count: usize| vec![0; count];
        let found = class_interval(&ClassOutcomes {
            true_positives: list(counts[0]),
            false_positives: list(counts[1]),
            false_negatives: list(counts[2]),
        });
        assert!((found.low - interval[0]).abs() < 1e-9, "{counts:?}");
        assert!((found.high - interval[1]).abs() < 1e-9, "{counts:?}");
    }
    let empty = class_interval(&ClassOutcomes::default());
    assert_eq!((empty.low, empty.high), (0.0, 1.0));
}

#[test]
fn bootstrap_matches_scipy() {
    let golden = golden();
    let decide = |probabilities: &[f32]| {
        let data = Labelled::new(probabilities, &golden.targets, golden.classes).unwrap();
        Decisions::at(&data, &vec![0.5; golden.classes])
    };
    let (a, b) = (decide(&golden.a), decide(&golden.b));
    let bootstrap = Bootstrap {
        draws: 10_000,
        seed: 3,
    };
    // Both draw at random.
    let tolerance = 4e-3;
    let found = intervals(&[&a], &bootstrap).unwrap().remove(0);
    assert_near(found.macro_f1, &golden.bootstrap["macro"]["a"], tolerance);
    assert_near(found.micro_f1, &golden.bootstrap["micro"]["a"], tolerance);
    let found = differences(&a, &b, &bootstrap).unwrap();
    let expected = |average: &str| golden.bootstrap[average]["difference"].clone();
    assert_near(found.macro_f1.interval, &expected("macro"), tolerance);
    assert_near(found.micro_f1.interval, &expected("micro"), tolerance);
}

#[test]
fn draws_depend_only_on_the_seed() {
    let golden = golden();
    let data = Labelled::new(&golden.a, &golden.targets, golden.classes).unwrap();
    let decisions = Decisions::at(&data, &vec![0.5; golden.classes]);
    let with = |seed, threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let bootstrap = Bootstrap { draws: 50, seed };
        let compute = || intervals(&[&decisions], &bootstrap).unwrap();
        pool.build().unwrap().install(compute)
    };
    assert_eq!(with(1, 1), with(1, 3));
    assert_ne!(with(1, 1), with(2, 1));
    // Draws are paired, so a model has no difference to itself.
    let same = differences(&decisions, &decisions, &Bootstrap::default()).unwrap();
    let zero = Interval {
        low: 0.0,
        high: 0.0,
    };
    assert_eq!(same.macro_f1.interval, zero);
    assert_eq!(same.classes[0].interval, zero);
}

#[test]
fn single_samples_have_no_interval() {
    let data = Labelled::new(&[0.9, 0.1], &[1.0, 0.0], 2).unwrap();
    let decisions = Decisions::at(&data, &[0.5; 2]);
    let default = Bootstrap::default();
    assert_eq!(intervals(&[&decisions], &default), None);
    assert_eq!(differences(&decisions, &decisions, &default), None);
    let none = Bootstrap {
        draws: 0,
        ..default
    };
    assert_eq!(intervals(&[&decisions], &none), None);
}

/// Probability of a true positive, false positive and false negative of each class.
struct SimulatedPopulation {
    classes: Vec<[f64; 3]>,
}

impl SimulatedPopulation {
    /// Creates classes of different prevalence; `difficulty` adds to the errors of each.
    fn new(prevalences: &[f64], difficulty: f64) -> Self {
        let classes = prevalences.iter().enumerate().map(|(number, p)| {
            let recall = 0.9 - 0.4 * number as f64 / prevalences.len() as f64 - difficulty;
            [p * recall, p * (0.3 + difficulty), p * (1.0 - recall)]
        });
        Self {
            classes: classes.collect(),
        }
    }

    fn f1(&self) -> Vec<f64> {
        let f1 = |[tp, fp, fn_]: &[f64; 3]| 2.0 * tp / (2.0 * tp + fp + fn_);
        self.classes.iter().map(f1).collect()
    }

    fn macro_f1(&self) -> f64 {
        self.f1().iter().sum::<f64>() / self.classes.len() as f64
    }

    /// Draws decisions on `samples` samples.
    fn draw(&self, samples: usize, rng: &mut ChaCha8Rng) -> Decisions {
        let (mut probabilities, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..samples {
            for [tp, fp, fn_] in &self.classes {
                let at: f64 = rng.random();
                let true_positive = at < *tp;
                let false_positive = !true_positive && at < tp + fp;
                let false_negative = !true_positive && !false_positive && at < tp + fp + fn_;
                probabilities.push(f32::from(true_positive || false_positive));
                targets.push(f32::from(true_positive || false_negative));
            }
        }
        let classes = self.classes.len();
        let data = Labelled::new(&probabilities, &targets, classes).unwrap();
        let thresholds = vec![0.5; classes];
        assert!(evaluate(&data, &thresholds).macro_f1 > 0.0);
        Decisions::at(&data, &thresholds)
    }
}

/// Returns the share of 1,000 data sets whose intervals contain the truth: for the macro-F1, for the
/// F1 of all classes together, and for the difference in macro-F1 between two models.
fn coverage(prevalences: &[f64], samples: usize) -> [f64; 3] {
    const SETS: u64 = 1000;
    let [a, b] = [0.0, 0.1].map(|difficulty| SimulatedPopulation::new(prevalences, difficulty));
    let covered = (0..SETS).into_par_iter().map(|set| {
        let mut rng = ChaCha8Rng::seed_from_u64(set);
        let (first, second) = (a.draw(samples, &mut rng), b.draw(samples, &mut rng));
        let bootstrap = Bootstrap {
            draws: 400,
            seed: set,
        };
        let found = intervals(&[&first], &bootstrap).unwrap().remove(0);
        let classes = found.classes.iter().zip(a.f1());
        let difference = differences(&first, &second, &bootstrap).unwrap();
        [
            usize::from(found.macro_f1.contains(a.macro_f1())),
            classes
                .filter(|(interval, f1)| interval.contains(*f1))
                .count(),
            usize::from(
                difference
                    .macro_f1
                    .interval
                    .contains(b.macro_f1() - a.macro_f1()),
            ),
        ]
    });
    let add = |a: [usize; 3], b: [usize; 3]| [a[0] + b[0], a[1] + b[1], a[2] + b[2]];
    let covered = covered.reduce(|| [0; 3], add);
    let totals = [
        SETS as f64,
        SETS as f64 * prevalences.len() as f64,
        SETS as f64,
    ];
    [0, 1, 2].map(|i| covered[i] as f64 / totals[i])
}

#[test]
fn intervals_cover_the_truth_in_95_percent() {
    // The rarest class has 16 positives on average.
    let shares = coverage(&[0.5, 0.3, 0.15, 0.08, 0.04], 400);
    for share in shares {
        assert!((0.93..=0.97).contains(&share), "{shares:?}");
    }
}

/// Prints the column "ours" of docs/evaluation.md:
/// `cargo test -p rgby-metrics --release --lib coverage_of -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes and prints figures"]
fn coverage_of_small_and_large_sets() {
    let hpa = rgby_common::labels::HPA_COUNTS.map(|count| f64::from(count) / 31_072.0);
    for (name, prevalences, samples) in [
        ("28 classes as in the HPA data", &hpa[..], 31_072),
        ("28 classes as in the HPA data", &hpa, 5000),
        ("28 classes as in the HPA data", &hpa, 1000),
        ("28 classes of 5 %", &[0.05; 28], 500),
        ("28 classes of 5 %", &[0.05; 28], 200),
    ] {
        println!(
            "{name}, {samples} samples: {:?}",
            coverage(prevalences, samples)
        );
    }
}

//! Tests of the loader: order, determinism, errors and termination.

use std::fs;
use std::path::Path;

use image::{GrayImage, Luma};

use super::*;
use crate::{AugmentConfig, Dataset, Images};
use rgby_imaging::{CHANNELS, Preprocess, SampleErrorKind};

const COUNT: usize = 13;

fn data(dir: &Path) -> Arc<SampleSource> {
    let mut labels = "Id,Target\n".to_owned();
    for i in 0..COUNT {
        for (c, channel) in CHANNELS.iter().enumerate() {
            let image = GrayImage::from_fn(12, 9, |x, y| {
                Luma([(i * 19 + c * 50) as u8 ^ (x * y) as u8])
            });
            image
                .save(dir.join(format!("s{i:02}_{channel}.png")))
                .unwrap();
        }
        labels = format!("{labels}s{i:02},{}\n", i % 5);
    }
    fs::write(dir.join("labels.csv"), labels).unwrap();
    let preprocess = Preprocess::new(&CHANNELS, 6);
    let labels = dir.join("labels.csv");
    let dataset = Dataset::open(&Images::plain(dir), &labels, &preprocess.stains(), 5).unwrap();
    Arc::new(SampleSource::new(Arc::new(dataset), Arc::new(preprocess)))
}

fn plan() -> Vec<Vec<usize>> {
    let all: Vec<_> = (0..COUNT).collect();
    epoch_order(&all, 3, 0)
        .chunks(2)
        .map(<[usize]>::to_vec)
        .collect()
}

#[test]
fn batches_are_bit_identical_for_any_number_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    let source = data(dir.path());
    let load = |workers| {
        let loader = BatchLoader::batches(&source, LoadPlan::new(plan()), workers);
        assert_eq!(loader.len(), 7);
        loader.map(Result::unwrap).collect::<Vec<_>>()
    };
    let one = load(1);
    let order: Vec<_> = one.iter().map(|b| b.indices.clone()).collect();
    assert_eq!(order, plan());
    for (batch, indices) in one.iter().zip(plan()) {
        assert_eq!(batch.images.len(), indices.len() * 4 * 36);
        for (row, index) in batch.targets.chunks(5).zip(indices) {
            let expected: Vec<_> = (0..5)
                .map(|class| f32::from(u8::from(class == index % 5)))
                .collect();
            assert_eq!(row.to_vec(), expected);
        }
    }
    assert_ne!(one[0].images, one[1].images);
    for workers in [0, 2, 8, 64] {
        assert_eq!(one, load(workers), "{workers} workers");
    }
}

#[test]
fn dropping_the_loader_stops_the_workers() {
    let dir = tempfile::tempdir().unwrap();
    let source = data(dir.path());
    for (workers, taken) in [(1, 0), (2, 1), (8, 3)] {
        // The plan is too long to finish: a drop that waited for it would hang.
        let plan = plan().into_iter().cycle().take(1_000_000).collect();
        let mut loader = BatchLoader::batches(&source, LoadPlan::new(plan), workers);
        assert_eq!(loader.by_ref().take(taken).flatten().count(), taken);
        drop(loader);
        assert_eq!(
            Arc::strong_count(&source),
            1,
            "a worker outlived its loader"
        );
    }
}

#[test]
fn an_unreadable_sample_is_an_error_at_its_position() {
    let dir = tempfile::tempdir().unwrap();
    let source = data(dir.path());
    fs::write(dir.path().join("s04_blue.png"), "no image").unwrap();
    let plan: Vec<_> = (0..COUNT).map(|i| vec![i]).collect();
    let results: Vec<_> = BatchLoader::batches(&source, LoadPlan::new(plan), 3).collect();
    assert_eq!(results.len(), COUNT);
    for (i, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), i == 4);
    }
    let message = results[4].as_ref().unwrap_err().to_string();
    assert!(message.contains("s04_blue.png"), "{message}");
}

#[test]
fn an_empty_plan_yields_no_batches() {
    let dir = tempfile::tempdir().unwrap();
    let source = data(dir.path());
    assert_eq!(
        BatchLoader::batches(&source, LoadPlan::default(), 4).count(),
        0
    );
}

#[test]
#[should_panic(expected = "index out of bounds")]
fn an_index_beyond_the_data_set_panics() {
    let dir = tempfile::tempdir().unwrap();
    let source = data(dir.path());
    BatchLoader::batches(&source, LoadPlan::new(vec![vec![0], vec![COUNT]]), 2).for_each(drop);
}

#[test]
fn epoch_order_is_a_permutation_by_seed_and_epoch() {
    let all: Vec<_> = (100..200).collect();
    let order = epoch_order(&all, 1, 2);
    assert_eq!(order, epoch_order(&all, 1, 2));
    assert_ne!(order, epoch_order(&all, 1, 3));
    assert_ne!(order, epoch_order(&all, 2, 2));
    assert_ne!(epoch_order(&all, 1, 2), epoch_order(&all, 2, 1));
    let mut sorted = order;
    sorted.sort_unstable();
    assert_eq!(sorted, all);
}

fn augmented(first_step: u64, batches: Vec<Vec<usize>>) -> LoadPlan {
    let config = AugmentConfig {
        dihedral: true,
        crop: 0.5,
        intensity: 0.5,
    };
    LoadPlan {
        batches,
        first_step,
        view: Augmenter::new(config, 11).into(),
    }
}

#[test]
fn augmented_batches_are_bit_identical_for_any_number_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    let source = data(dir.path());
    let load = |plan, workers| {
        let loader = BatchLoader::batches(&source, plan, workers);
        loader.map(Result::unwrap).collect::<Vec<_>>()
    };
    let one = load(augmented(40, plan()), 1);
    for workers in [2, 8] {
        assert_eq!(
            one,
            load(augmented(40, plan()), workers),
            "{workers} workers"
        );
    }
    let plain = load(LoadPlan::new(plan()), 2);
    for (augmented, plain) in one.iter().zip(&plain) {
        assert_ne!(augmented.images, plain.images);
        assert_eq!(augmented.targets, plain.targets);
    }
    // A run resumed after three steps gets the same batches.
    let rest = load(augmented(43, plan().split_off(3)), 2);
    assert_eq!(one[3..], rest);
    // The same sample is augmented differently each time.
    let again = load(augmented(40, vec![vec![0, 0], vec![0]]), 1);
    let (first, second) = again[0].images.split_at(4 * 36);
    assert!(first != second && first != again[1].images && second != again[1].images);
}

#[test]
fn an_image_that_changes_its_size_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let source = data(dir.path());
    let load = || {
        let loader = BatchLoader::batches(&source, LoadPlan::new(vec![vec![3]]), 1);
        loader.collect::<Result<Vec<_>, _>>()
    };
    let before = load().unwrap();
    for channel in CHANNELS {
        let image = GrayImage::from_pixel(9, 12, Luma([7]));
        image
            .save(dir.path().join(format!("s03_{channel}.png")))
            .unwrap();
    }
    let error = load().unwrap_err();
    let (was, is) = ((12, 9), (9, 12));
    assert!(
        matches!(error.kind, SampleErrorKind::Changed { was: w, is: i } if (w, i) == (was, is)),
        "{error}"
    );
    let message = error.to_string();
    assert!(message.contains("s03_red.png"), "{message}");
    assert!(
        message.contains("9×12 pixels now and was 12×9"),
        "{message}"
    );
    data(dir.path());
    assert_eq!(load().unwrap(), before);
}

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::*;
use crate::model::tests::{tiny_model, write};
use crate::{EngineOptions, MergeConfig, ModelFile, merge};
use rgby_store::StoreOptions;

/// Creates a model and `count` samples, the first of which is unreadable.
fn workplace(count: u8) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = ModelFile::open(&write(dir.path(), &tiny_model())).unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    for id in 0..count {
        for channel in &model.spec().preprocess.channels {
            let image = image::GrayImage::from_pixel(4, 4, image::Luma([id * 9]));
            let name = format!("images/s{id}_{channel}.png");
            image.save(dir.path().join(name)).unwrap();
        }
    }
    fs::write(dir.path().join("images/s0_red.png"), "no image").unwrap();
    dir
}

fn config(dir: &Path, out: &str) -> ScoreConfig {
    ScoreConfig {
        engine: EngineOptions {
            batch: 2,
            ..EngineOptions::default()
        },
        ..ScoreConfig::new(dir.join("model.onnx"), dir.join("images"), dir.join(out))
    }
}

fn shown(error: &ScoreRunError) -> String {
    error.to_string()
}

#[test]
fn resumes_after_too_many_failures_and_keeps_finished_results() {
    let dir = workplace(6);
    let path = dir.path();
    let whole = run(&config(path, "whole.csv"), &()).unwrap();
    assert_eq!((whole.samples, whole.failed, whole.scored), (6, 1, 6));
    assert!(whole.finished && whole.files.errors.exists());
    let mut config = config(path, "out.csv");
    (config.part_size, config.max_errors) = (2, Some(0));
    let error = run(&config, &()).unwrap_err();
    assert!(shown(&error).contains("samples are kept beside"), "{error}");
    let error = run(&config, &()).unwrap_err();
    assert!(shown(&error).contains("of an unfinished run"), "{error}");
    (config.resume, config.max_errors) = (true, None);
    let other = ScoreConfig {
        engine: EngineOptions {
            batch: 3,
            ..config.engine.clone()
        },
        ..config.clone()
    };
    let error = shown(&run(&other, &()).unwrap_err());
    assert!(
        error.contains("--batch: 2 in the unfinished run, 3 now"),
        "{error}"
    );
    let report = run(&config, &()).unwrap();
    assert!(report.finished && report.resumed_at > 0);
    assert_eq!(report.resumed_at + report.scored, 6);
    let read = |name: &str| fs::read(path.join(name)).unwrap();
    assert_eq!(read("out.csv"), read("whole.csv"));
    assert!(!path.join("out.csv.parts").exists());
    let again = run(&config, &()).unwrap();
    assert_eq!((again.scored, again.resumed_at, again.failed), (0, 6, 1));
    let error = shown(&run(&other, &()).unwrap_err());
    assert!(error.contains("--batch: 2 in that run, 3 now"), "{error}");
}

#[test]
fn a_stop_leaves_the_rest_for_a_resumed_run() {
    let dir = workplace(6);
    let mut config = config(dir.path(), "out.csv");
    config.stop.store(true, Ordering::Relaxed);
    assert!(!run(&config, &()).unwrap().finished);
    (config.stop, config.resume) = (Arc::default(), true);
    assert!(run(&config, &()).unwrap().finished);
}

#[test]
fn shards_merge_to_the_result_of_one_run() {
    let dir = workplace(9);
    let path = dir.path();
    run(&config(path, "whole.csv"), &()).unwrap();
    let parts: Vec<_> = (0..3).map(|shard| format!("{shard}.csv")).collect();
    for (shard, out) in parts.iter().enumerate() {
        let mut config = config(path, out);
        config.shard.shard = Some(format!("{shard}/3").parse().unwrap());
        assert!(run(&config, &()).unwrap().finished);
    }
    let merged = MergeConfig {
        parts: parts.iter().map(|part| path.join(part)).collect(),
        out: path.join("merged.csv"),
        ids: None,
        store: StoreOptions::default(),
    };
    let report = merge(&merged, &()).unwrap();
    assert_eq!((report.parts, report.rows, report.failed), (3, 9, 1));
    for suffix in [".csv", ".csv.manifest.json", ".errors.csv"] {
        let read = |name: &str| fs::read_to_string(path.join(format!("{name}{suffix}"))).unwrap();
        assert_eq!(read("merged"), read("whole"), "{suffix}");
    }
}

#[test]
fn outputs_that_cannot_be_written_are_errors_before_any_work() {
    let dir = workplace(1);
    let error = |out: &str, scores: Option<&str>| {
        let mut config = config(dir.path(), out);
        config.scores = scores.map(|name| dir.path().join(name));
        shown(&run(&config, &()).unwrap_err())
    };
    assert!(error("images", None).contains("is a folder"));
    assert!(error("none/out.csv", None).contains("there is no folder"));
    assert!(error("out.csv", Some("out.csv")).contains("is also the path of another result"));
}

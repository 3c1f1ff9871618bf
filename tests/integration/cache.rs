//! Training from a pixel cache equals training from images; unsuitable caches are rejected.

use std::fs;
use std::path::Path;

use crate::support::{assert_refused, must, read, run};
use crate::train_support::{DATA, assert_same, workplace};

const TRAIN: &str = "train --config baseline.toml --set train.steps_per_epoch=3 \
                     --set data.augment.dihedral=true --set data.augment.intensity=0.1";

#[test]
fn a_cached_run_is_bit_identical() {
    let dir = workplace(24, "0,25");
    let path = dir.path();
    must(path, &format!("{TRAIN} {DATA} --out files"));
    must(path, &format!("cache {DATA} --size 32 --out data.cache"));
    let shown = must(
        path,
        &format!("{TRAIN} {DATA} --cache data.cache --out cached"),
    );
    assert!(
        shown.stderr.contains("waiting for data"),
        "{}",
        shown.stderr
    );
    assert_same(path, "files", "cached");
    // With one and with eight workers, and with a cache that the run creates.
    for workers in [1, 8] {
        let out = format!("made{workers}");
        let set = format!("--set data.workers={workers} --cache {out}.cache --out {out}");
        must(path, &format!("{TRAIN} {DATA} {set}"));
        assert_same(path, "files", &out);
        let bytes = |name: &str| fs::read(path.join(name)).unwrap();
        assert!(bytes("data.cache") == bytes(&format!("{out}.cache")));
    }
    assert!(read(path, "cached/timing.csv").starts_with("epoch,seconds,images_per_s,waited\n"));
    // No image is opened.
    for file in fs::read_dir(path.join("data/images")).unwrap() {
        fs::write(file.unwrap().path(), "no image").unwrap();
    }
    must(
        path,
        &format!("{TRAIN} {DATA} --cache data.cache --out blind"),
    );
    assert_same(path, "files", "blind");
}

#[test]
fn lists_unreadable_samples_and_caches_the_rest() {
    let dir = workplace(4, "0,25");
    let path = dir.path();
    let labels = read(path, "data/labels.csv");
    let ids: Vec<&str> = labels
        .lines()
        .skip(1)
        .map(|line| line.split(',').next().unwrap())
        .collect();
    fs::write(
        path.join(format!("data/images/{}_green.png", ids[2])),
        "no image",
    )
    .unwrap();
    let cached = run(path, &format!("cache {DATA} --size 32 --out data.cache"));
    assert_eq!(cached.code, Some(1), "{cached:?}");
    let errors = read(path, "data.cache.errors.csv");
    assert!(
        errors.contains(ids[2]) && errors.lines().count() == 2,
        "{errors}"
    );
    let train = format!("{TRAIN} {DATA} --cache data.cache --out run");
    assert_refused(path, &[(&train, &["1 of 4 samples", ids[2], "data.cache"])]);
    let rest: Vec<&str> = labels
        .lines()
        .filter(|line| !line.starts_with(ids[2]))
        .collect();
    fs::write(path.join("data/labels.csv"), rest.join("\n")).unwrap();
    must(path, &train);
}

#[test]
fn rejects_an_unsuitable_cache() {
    let dir = workplace(4, "0,25");
    let path = dir.path();
    must(path, &format!("cache {DATA} --size 32 --out data.cache"));
    must(
        path,
        &format!("{TRAIN} {DATA} --cache data.cache --out run"),
    );
    let whole = fs::read(path.join("data.cache")).unwrap();
    write(path, "cut.cache", &whole[..whole.len() - 1]);
    let mut flipped = whole.clone();
    flipped[4000] ^= 1;
    write(path, "flipped.cache", &flipped);
    write(path, "labels.cache", b"Id,Target\n");
    let with = |cache: &str, set: &str| format!("{TRAIN} {DATA} --cache {cache} --out x {set}");
    let refused = [
        (with("cut.cache", ""), vec!["cut.cache", "truncated"]),
        (
            with("labels.cache", ""),
            vec!["labels.cache", "another kind of file"],
        ),
        (
            with("data.cache", "--set model.input_size=48"),
            vec!["32×32", "48×48", "input_size"],
        ),
        (
            with("data.cache", "--set data.resize=skimage"),
            vec!["data.resize"],
        ),
        (
            with("data.cache", "--set model.channels=['red']"),
            vec!["stains", "needs red"],
        ),
        (
            format!("cache {DATA} --size 0 --out x"),
            vec!["--size", "0"],
        ),
        (format!("cache {DATA} --size 32 --out no/x"), vec!["no/x"]),
    ];
    for (args, parts) in &refused {
        assert_refused(path, &[(args.as_str(), parts.as_slice())]);
    }
    // A flipped byte is detected when its sample is read.
    let damaged = run(path, &with("flipped.cache", ""));
    assert_eq!(damaged.code, Some(2), "{damaged:?}");
    assert!(
        damaged.stderr.contains("flipped.cache") && damaged.stderr.contains("damaged"),
        "{damaged:?}"
    );
    // A run is resumed only with the pixels that it started with.
    let resume = format!("{TRAIN} {DATA} --out run --resume");
    assert_refused(path, &[(&resume, &["--cache"])]);
    // A cache larger than the input is accepted if training crops.
    let crop = "--set data.augment.crop=0.5 --set model.input_size=24";
    must(
        path,
        &format!("{TRAIN} {DATA} --cache data.cache --out crop {crop}"),
    );
}

fn write(dir: &Path, name: &str, bytes: &[u8]) {
    fs::write(dir.join(name), bytes).unwrap();
}

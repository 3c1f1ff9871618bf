use std::fs;
use std::path::Path;

use image::GrayImage;
use serde_json::Value;

use super::*;
use rgby_imaging::CHANNELS;

/// Images, statistics by numpy: see `tests/golden/channel_statistics.py`.
const GOLDEN: &str = include_str!("../../../../tests/golden/channel_statistics.json");

fn config(images: &Path, labels: &Path, classes: usize) -> CheckConfig {
    CheckConfig {
        images: Images::plain(images),
        labels: labels.to_owned(),
        stains: CHANNELS.map(String::from).to_vec(),
        classes: (0..classes).map(|class| format!("Class {class}")).collect(),
        allow: Vec::new(),
    }
}

/// Writes a channel of a sample whose pixels are `seed`, `seed + 1`, …
fn write(dir: &Path, id: &str, channel: &str, (side, seed): (u32, u8)) {
    let pixels = (0..side * side)
        .map(|at| seed.wrapping_add(at as u8))
        .collect();
    let image = GrayImage::from_raw(side, side, pixels).unwrap();
    image.save(dir.join(format!("{id}_{channel}.png"))).unwrap();
}

/// A sample that is like no other of another `seed`.
fn write_sample(dir: &Path, id: &str, (side, seed): (u32, u8)) {
    for (channel, offset) in CHANNELS.into_iter().zip(0..) {
        write(dir, id, channel, (side, seed + offset));
    }
}

fn check(dir: &Path, labels: &str, classes: usize) -> CheckReport {
    let csv = dir.join("labels.csv");
    fs::write(&csv, labels).unwrap();
    check_data(&config(dir, &csv, classes), &()).unwrap()
}

/// Kind, id and message of every problem but the rare classes.
fn problems(checked: &CheckReport) -> Vec<(ProblemKind, &str, &str)> {
    let problems = checked.problems.iter();
    problems
        .filter(|p| p.kind != ProblemKind::RareClass)
        .map(|p| (p.kind, p.id.as_str(), p.message.as_str()))
        .collect()
}

#[test]
fn statistics_are_numpys() {
    let golden: Value = serde_json::from_str(GOLDEN).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut labels = "Id,Target".to_owned();
    for (number, sample) in golden["samples"].as_array().unwrap().iter().enumerate() {
        labels += &format!("\n{number},0");
        for (channel, rows) in sample.as_object().unwrap() {
            let rows: Vec<Vec<u8>> = serde_json::from_value(rows.clone()).unwrap();
            let (width, height) = (rows[0].len() as u32, rows.len() as u32);
            let image = GrayImage::from_raw(width, height, rows.concat()).unwrap();
            let name = format!("{number}_{channel}.png");
            image.save(dir.path().join(name)).unwrap();
        }
    }
    let checked = check(dir.path(), &labels, 1);
    for channel in &checked.channels {
        let expected = &golden["statistics"][&channel.channel];
        let ours = serde_json::to_value(channel).unwrap();
        for key in ["pixels", "min", "max"] {
            assert_eq!(ours[key], expected[key], "{key} of {}", channel.channel);
        }
        for key in ["mean", "std", "saturated", "black"] {
            let (ours, expected) = (ours[key].as_f64().unwrap(), expected[key].as_f64().unwrap());
            assert!(
                (ours - expected).abs() < 1e-14,
                "{key}: {ours}, not {expected}"
            );
        }
    }
}

#[test]
fn a_sound_set_has_no_problems() {
    let dir = tempfile::tempdir().unwrap();
    let mut labels = "Id,Target".to_owned();
    for number in 0..10_u8 {
        write_sample(dir.path(), &format!("s{number}"), (12, 20 * number));
        labels += &format!("\ns{number},0 1");
    }
    let checked = check(dir.path(), &labels, 2);
    assert_eq!(checked.problems, []);
    assert_eq!((checked.labelled, checked.samples), (10, 10));
    assert_eq!(checked.sizes.len(), 1);
    assert_eq!(checked.sizes[0].samples, 10);
    assert_eq!(checked.channels[3].images, 10);
}

#[test]
fn every_kind_of_problem_is_found_and_none_hides_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    for (id, seed) in ["a", "b", "c", "d", "e", "f"]
        .into_iter()
        .zip((0..).step_by(16))
    {
        write_sample(path, id, (16, seed));
    }
    write_sample(path, "twin", (16, 0));
    write_sample(path, "bare", (16, 200));
    // A copied channel, a black one, one of another size, one that is no image, one that is not.
    fs::copy(path.join("a_red.png"), path.join("b_green.png")).unwrap();
    GrayImage::new(16, 16)
        .save(path.join("c_blue.png"))
        .unwrap();
    write(path, "d", "yellow", (8, 1));
    fs::write(path.join("e_red.png"), "no image").unwrap();
    fs::remove_file(path.join("f_green.png")).unwrap();
    let labels = "Id,Target\na,0\nb,0\nc,9\nd,\ne,0\nf,0\na,0\ntwin,1\ngone,0\n,0\n";
    let checked = check(path, labels, 3);
    let found = problems(&checked);
    let expected = [
        (ProblemKind::LabelLine, "", "line 11: the id is empty"),
        (
            ProblemKind::DuplicateId,
            "a",
            "line 8: the id `a` was already on line 2",
        ),
        (
            ProblemKind::UnknownLabel,
            "c",
            "line 4: class 9 does not exist",
        ),
        (ProblemKind::EmptyLabel, "d", "has no class on line 5"),
        (ProblemKind::NoImages, "gone", "is on line 10 of the labels"),
        (ProblemKind::MissingChannel, "f", "has no file for green"),
        (ProblemKind::Unreadable, "e", "not an image"),
        (ProblemKind::SizeDiffers, "d", "is 8×8 pixels, but "),
        (
            ProblemKind::DuplicateSample,
            "twin",
            "has the same pixels as `a`, and their labels differ",
        ),
        (
            ProblemKind::DuplicateImage,
            "b",
            "green has the same pixels as red of `a`",
        ),
        (ProblemKind::NoLabel, "bare", "is not in the labels file"),
        (
            ProblemKind::ConstantImage,
            "c",
            "blue is 0 of 255 in every pixel",
        ),
        (ProblemKind::AbsentClass, "", "no sample carries class 2"),
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((kind, id, message), (wanted, of, part)) in found.into_iter().zip(expected) {
        assert_eq!((kind, id), (wanted, of), "{message}");
        assert!(
            message.starts_with(part) || message.contains(part),
            "no {part} in {message}"
        );
    }
    assert_eq!(checked.count(Severity::Error), 10);
}

#[test]
fn what_is_allowed_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path(), "a", (16, 0));
    let mut checked = check(dir.path(), "Id,Target\na,\n", 1);
    assert_eq!(checked.count(Severity::Error), 1);
    checked.allow(&[ProblemKind::EmptyLabel]);
    assert_eq!(checked.count(Severity::Error), 0);
}

#[test]
fn rare_sizes_and_dark_channels_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut labels = "Id,Target".to_owned();
    for number in 0..11_u32 {
        let side = if number == 10 { 6 } else { 5 };
        for (offset, channel) in (0..).zip(CHANNELS) {
            let seed = if channel == "blue" {
                number as u8
            } else {
                40 + 20 * number as u8 + 3 * offset
            };
            write(dir.path(), &number.to_string(), channel, (side, seed));
        }
        labels += &format!("\n{number},0");
    }
    let checked = check(dir.path(), &labels, 1);
    let kinds: Vec<ProblemKind> = checked.problems.iter().map(|p| p.kind).collect();
    assert!(kinds.contains(&ProblemKind::UnusualSize), "{kinds:?}");
    assert!(kinds.contains(&ProblemKind::DarkChannel), "{kinds:?}");
    assert_eq!(checked.count(Severity::Error), 0, "{:#?}", checked.problems);
    let dark = checked
        .problems
        .iter()
        .find(|p| p.kind == ProblemKind::DarkChannel);
    assert!(
        dark.unwrap()
            .message
            .starts_with("blue is never brighter than 45")
    );
}

#[test]
fn files_that_contradict_each_other_are_a_problem_and_no_folder_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path(), "a", (16, 0));
    fs::copy(dir.path().join("a_red.png"), dir.path().join("a_red.tif")).unwrap();
    let checked = check(dir.path(), "Id,Target\na,0\n", 1);
    assert_eq!(problems(&checked)[0].0, ProblemKind::Images);
    assert!(
        !problems(&checked)
            .iter()
            .any(|p| p.0 == ProblemKind::NoImages)
    );
    let labels = dir.path().join("labels.csv");
    let nowhere = config(&dir.path().join("nowhere"), &labels, 1);
    assert!(check_data(&nowhere, &()).is_err());
    let unlabelled = config(dir.path(), &dir.path().join("none.csv"), 1);
    assert!(check_data(&unlabelled, &()).is_err());
}

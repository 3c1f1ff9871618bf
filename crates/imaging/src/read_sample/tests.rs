//! Tests of finding and reading samples.

use std::fs;

use image::{GrayImage, ImageFormat, Luma};

use super::*;
use crate::{CHANNELS, FindError, find_samples};

fn all_channels() -> Vec<String> {
    CHANNELS.map(String::from).to_vec()
}

fn write_gray(path: &Path, side: u32, value: u8, format: ImageFormat) {
    GrayImage::from_pixel(side, side, Luma([value]))
        .save_with_format(path, format)
        .unwrap();
}

fn write_sample(dir: &Path, id: &str) {
    for (value, channel) in CHANNELS.iter().enumerate() {
        let path = dir.join(format!("{id}_{channel}.png"));
        write_gray(&path, 8, value as u8, ImageFormat::Png);
    }
}

fn read_only(dir: &Path) -> Result<Planes, SampleError> {
    let samples = find_samples(dir, &all_channels()).unwrap();
    assert_eq!(samples.len(), 1);
    read_sample(&samples[0], &DecodeLimits::default())
}

#[test]
fn samples_are_sorted_and_ids_may_contain_underscores() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path(), "b_2_red");
    write_sample(dir.path(), "a");
    write_gray(&dir.path().join("c_green.TIFF"), 8, 1, ImageFormat::Tiff);
    for ignored in [
        "notes.txt",
        "a_cyan.png",
        "_red.png",
        "red.png",
        "d_red.bmp",
    ] {
        fs::write(dir.path().join(ignored), "").unwrap();
    }
    let samples = find_samples(dir.path(), &all_channels()).unwrap();
    let ids: Vec<_> = samples.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["a", "b_2_red", "c"]);
    assert!(samples[1].is_complete() && !samples[2].is_complete());
    assert!(
        samples[2].files[1]
            .as_ref()
            .unwrap()
            .ends_with("c_green.TIFF")
    );
}

#[test]
fn channel_names_may_contain_digits_underscores_and_dots() {
    let dir = tempfile::tempdir().unwrap();
    let channels = ["1", "er_1", "dna.v2"].map(String::from);
    for name in ["a_b_1.png", "a_b_er_1.png", "a_b_dna.v2.png", "er_1.png"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let samples = find_samples(dir.path(), &channels).unwrap();
    let ids: Vec<_> = samples.iter().map(|s| s.id.as_str()).collect();
    // If the longer channel would leave an empty id, the shorter one counts.
    assert_eq!(ids, ["a_b", "er"]);
    assert!(samples[0].is_complete());
    assert!(
        samples[0].files[1]
            .as_ref()
            .unwrap()
            .ends_with("a_b_er_1.png")
    );
}

#[test]
fn planes_have_the_order_of_the_channels() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path(), "a");
    let channels = ["blue", "red"].map(String::from);
    let samples = find_samples(dir.path(), &channels).unwrap();
    let planes = read_sample(&samples[0], &DecodeLimits::default()).unwrap();
    assert_eq!((planes.width, planes.height, planes.channels), (8, 8, 2));
    assert!(planes.plane(0).unwrap().iter().all(|&v| v == 2));
    assert!(planes.plane(1).unwrap().iter().all(|&v| v == 0));
    assert_eq!(planes.plane(2), None);
}

#[test]
fn errors_name_the_expected_files_and_the_folder_content() {
    let dir = tempfile::tempdir().unwrap();
    let empty = find_samples(dir.path(), &all_channels())
        .unwrap_err()
        .to_string();
    assert!(empty.contains("red|green|blue|yellow") && empty.contains("an empty folder"));
    let file = dir.path().join("photo.png");
    fs::write(&file, "").unwrap();
    let other = find_samples(dir.path(), &all_channels())
        .unwrap_err()
        .to_string();
    assert!(other.contains("`photo.png`"), "{other}");
    assert!(matches!(
        find_samples(&file, &all_channels()),
        Err(FindError::NotAFolder(_))
    ));
    let missing = find_samples(&dir.path().join("x"), &all_channels()).unwrap_err();
    assert!(missing.to_string().contains("cannot list"), "{missing}");
}

#[test]
fn rejects_two_files_for_one_channel() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path(), "a");
    fs::write(dir.path().join("a_red.jpg"), "").unwrap();
    let error = find_samples(dir.path(), &all_channels())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("a_red.jpg") && error.contains("a_red.png"),
        "{error}"
    );
}

#[test]
fn reads_mixed_formats_and_a_jpeg_named_png() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path(), "a");
    write_gray(&dir.path().join("a_green.png"), 8, 90, ImageFormat::Jpeg);
    write_gray(&dir.path().join("a_blue.png"), 8, 91, ImageFormat::Tiff);
    let planes = read_only(dir.path()).unwrap();
    assert!(planes.plane(1).unwrap().iter().all(|v| v.abs_diff(90) < 3));
    assert!(planes.plane(2).unwrap().iter().all(|&v| v == 91));
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path(), "a");
    let yellow = dir.path().join("a_yellow.png");

    write_gray(&yellow, 9, 0, ImageFormat::Png);
    let error = read_only(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("a_yellow.png") && error.contains("9×9"),
        "{error}"
    );
    assert!(
        error.contains("a_red.png") && error.contains("8×8"),
        "{error}"
    );

    fs::write(&yellow, "not an image").unwrap();
    let error = read_only(dir.path()).unwrap_err();
    assert!(matches!(
        error.kind,
        SampleErrorKind::Decode(DecodeError::NotAnImage)
    ));
    assert!(error.to_string().contains("a_yellow.png"), "{error}");

    fs::remove_file(&yellow).unwrap();
    let error = read_only(dir.path()).unwrap_err();
    assert_eq!(
        (error.id.as_str(), error.file.as_str()),
        ("a", "a_yellow.png")
    );
    assert!(
        error.to_string().contains("no file for channel yellow"),
        "{error}"
    );

    fs::create_dir(&yellow).unwrap();
    let error = read_only(dir.path()).unwrap_err();
    assert!(matches!(error.kind, SampleErrorKind::Io(_)), "{error}");
}

#[test]
fn does_not_read_files_beyond_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    write_sample(dir.path(), "a");
    let samples = find_samples(dir.path(), &all_channels()).unwrap();
    let limits = DecodeLimits {
        max_file_bytes: 20,
        ..DecodeLimits::default()
    };
    let error = read_sample(&samples[0], &limits).unwrap_err();
    let SampleErrorKind::Decode(kind) = error.kind else {
        panic!("{error}")
    };
    assert_eq!(kind, DecodeError::FileTooLarge { limit: 20 });
    let mut bytes = Vec::new();
    let path = samples[0].files[0].as_ref().unwrap();
    LocalFiles.read(path, 20, &mut bytes).unwrap();
    assert_eq!(bytes.len(), 21);
}

//! Tests of preprocessing: the optimizations are bit-identical to a plain implementation, and no
//! sample affects the next one.

use super::*;
use crate::{CHANNELS, Crop, Resize, find_samples};

/// Planes that contain all gray values.
fn planes(width: u32, height: u32, channels: usize) -> Planes {
    let len = width as usize * height as usize * channels;
    let data = (0..len).map(|i| (i * i / 7 + i * 31) as u8).collect();
    Planes {
        width,
        height,
        channels,
        data,
    }
}

fn augmentations() -> Vec<Augmentation> {
    let crop = |share, left, top| Some(Crop { share, left, top });
    let mut out = Vec::new();
    for crop in [None, crop(0.7, 0.3, 0.9), crop(0.01, 0.0, 0.0)] {
        for gains in [vec![], vec![0.9, 1.3], vec![1.0, 0.0, 2.5, 0.75]] {
            out.extend((0..8).map(|dihedral| Augmentation {
                crop,
                dihedral,
                gains: gains.clone(),
            }));
        }
    }
    out
}

/// Reference implementation: all steps one by one in `f32`, in newly allocated memory.
fn reference(preprocess: &Preprocess, planes: &Planes, augmentation: &Augmentation) -> Vec<f32> {
    let mut cropped = planes.clone();
    if let Some(crop) = &augmentation.crop {
        crop.cut(planes, &mut cropped);
    }
    let side = preprocess.size as usize;
    let mut resized = ResizeBuffers::default();
    let pixels = resized.floats(&cropped, preprocess.size, preprocess.resize);
    for (number, plane) in pixels.chunks_exact_mut(side * side).enumerate() {
        augmentation.apply(number, plane, side);
    }
    let stains = preprocess.stains();
    let mut out = Vec::new();
    for (at, channel) in preprocess.channels.iter().enumerate() {
        let mix: StainMix = channel.parse().unwrap();
        for pixel in 0..side * side {
            let parts = mix.terms().iter().map(|term| {
                let number = stains.iter().position(|stain| *stain == term.stain);
                term.weight * pixels[number.unwrap() * side * side + pixel]
            });
            let value = parts.reduce(|sum, part| sum + part).unwrap();
            out.push((value / 255.0 - preprocess.mean[at]) / preprocess.std[at]);
        }
    }
    out
}

#[test]
fn is_bit_identical_to_the_reference_implementation() {
    for filter in [Resize::Bilinear, Resize::Nearest, Resize::Skimage] {
        for channels in [
            &CHANNELS[..],
            &["red/2+yellow/2", "0.3*green+yellow", "blue"],
        ] {
            let mut preprocess = Preprocess::new(channels, 16);
            preprocess.resize = filter;
            preprocess.mean[0] = 0.074_6;
            preprocess.std[0] = 0.122_8;
            let preprocessor = Preprocessor::new(preprocess.clone());
            let mut out = vec![f32::NAN; preprocess.input_len()];
            for (width, height) in [(16, 16), (37, 21), (5, 40)] {
                let planes = planes(width, height, 4);
                for augmentation in augmentations() {
                    preprocessor.prepare(&planes, &augmentation, &mut out);
                    let expected = reference(&preprocess, &planes, &augmentation);
                    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect();
                    let (found, expected): (Vec<u32>, Vec<u32>) = (bits(&out), bits(&expected));
                    assert!(
                        found == expected,
                        "{filter:?} {width}×{height} {augmentation:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn buffers_do_not_leak_from_one_sample_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let save = |id: &str, channel: &str, side: u32| {
        let image = image::GrayImage::from_fn(side, side, |x, y| image::Luma([(x * 9 + y) as u8]));
        let path = dir.path().join(format!("{id}_{channel}.png"));
        image.save(&path).unwrap();
        path
    };
    for (id, side) in [("a", 40), ("b", 4), ("c", 40)] {
        save(id, "red", side);
        let second = save(id, "green", side);
        if id == "b" {
            std::fs::write(second, b"no image").unwrap();
        }
    }
    let preprocess = Preprocess::new(&CHANNELS[..2], 8);
    let samples = find_samples(dir.path(), &preprocess.stains()).unwrap();
    let preprocessor = Preprocessor::new(preprocess);
    let load = |number: usize| {
        let mut out = vec![f32::NAN; 2 * 64];
        let done = preprocessor.load(&samples[number], &DecodeLimits::default(), &mut out);
        done.map(|()| out)
    };
    let first = load(0).unwrap();
    assert!(load(1).is_err());
    assert_eq!(load(2).unwrap(), first);
    let error = preprocessor.load_with(
        &samples[0],
        &DecodeLimits::default(),
        |planes| {
            assert_eq!((planes.width, planes.channels), (40, 2));
            load(1).map(|_| Augmentation::default())
        },
        &mut vec![0.0; 2 * 64],
    );
    assert!(error.unwrap_err().to_string().contains("sample `b`"));
    assert_eq!(load(0).unwrap(), first);
}

#[test]
fn a_set_returns_the_inputs_of_its_single_preprocessors() {
    let dir = tempfile::tempdir().unwrap();
    for (number, stain) in ["blue", "green", "red", "yellow"].iter().enumerate() {
        let pixel = |x, y| image::Luma([(x * 31 + y * 17 + number as u32 * 50) as u8]);
        let path = dir.path().join(format!("a_{stain}.png"));
        image::GrayImage::from_fn(13, 9, pixel).save(path).unwrap();
    }
    let preprocesses = [
        Preprocess::new(&["green", "red"], 8),
        Preprocess::new(&["yellow/2+red/2"], 5),
        Preprocess {
            mean: vec![0.1; 2],
            std: vec![0.2; 2],
            ..Preprocess::new(&["red", "blue"], 13)
        },
    ];
    let limits = DecodeLimits::default();
    let mut expected = Vec::new();
    for one in &preprocesses {
        let samples = find_samples(dir.path(), &one.stains()).unwrap();
        let mut input = vec![0.0; one.input_len()];
        let alone = Preprocessor::new(one.clone());
        alone.load(&samples[0], &limits, &mut input).unwrap();
        expected.extend(input);
    }
    let stains = PreprocessorSet::stains(&preprocesses);
    assert_eq!(stains, ["green", "red", "yellow", "blue"]);
    let all = PreprocessorSet::new(&preprocesses);
    let samples = find_samples(dir.path(), &stains).unwrap();
    let mut found = vec![0.0; all.input_len()];
    all.load(&samples[0], &limits, &mut found).unwrap();
    assert_eq!(found, expected);
}

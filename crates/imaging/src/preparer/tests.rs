//! Tests of the preparer: its short cuts change no bit, and nothing of one sample is left in the
//! next.

use super::*;
use crate::{CHANNELS, Crop, Resize, find_samples};

/// Planes with all values, of a size of their own.
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

fn variations() -> Vec<Variation> {
    let crop = |share, left, top| Some(Crop { share, left, top });
    let mut out = Vec::new();
    for crop in [None, crop(0.7, 0.3, 0.9), crop(0.01, 0.0, 0.0)] {
        for gains in [vec![], vec![0.9, 1.3], vec![1.0, 0.0, 2.5, 0.75]] {
            out.extend((0..8).map(|dihedral| Variation {
                crop,
                dihedral,
                gains: gains.clone(),
            }));
        }
    }
    out
}

/// The plain way: everything in floats, step by step, in fresh memory.
fn plainly(preprocess: &Preprocess, planes: &Planes, variation: &Variation) -> Vec<f32> {
    let mut part = planes.clone();
    if let Some(crop) = &variation.crop {
        crop.cut(planes, &mut part);
    }
    let side = preprocess.size as usize;
    let mut resized = Resized::default();
    let pixels = resized.floats(&part, preprocess.size, preprocess.resize);
    for (number, plane) in pixels.chunks_exact_mut(side * side).enumerate() {
        variation.apply(number, plane, side);
    }
    let stains = preprocess.stains();
    let mut out = Vec::new();
    for (at, channel) in preprocess.channels.iter().enumerate() {
        let mix: Mix = channel.parse().unwrap();
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
fn no_bit_differs_from_the_plain_way() {
    for filter in [Resize::Bilinear, Resize::Nearest, Resize::Skimage] {
        for channels in [
            &CHANNELS[..],
            &["red/2+yellow/2", "0.3*green+yellow", "blue"],
        ] {
            let mut preprocess = Preprocess::new(channels, 16);
            preprocess.resize = filter;
            preprocess.mean[0] = 0.074_6;
            preprocess.std[0] = 0.122_8;
            let preparer = Preparer::new(preprocess.clone());
            let mut out = vec![f32::NAN; preprocess.input_len()];
            for (width, height) in [(16, 16), (37, 21), (5, 40)] {
                let planes = planes(width, height, 4);
                for variation in variations() {
                    preparer.prepare(&planes, &variation, &mut out);
                    let plain = plainly(&preprocess, &planes, &variation);
                    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect();
                    let (found, wanted): (Vec<u32>, Vec<u32>) = (bits(&out), bits(&plain));
                    assert!(found == wanted, "{filter:?} {width}×{height} {variation:?}");
                }
            }
        }
    }
}

#[test]
fn nothing_is_left_of_the_sample_before() {
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
    let preparer = Preparer::new(preprocess);
    let load = |number: usize| {
        let mut out = vec![f32::NAN; 2 * 64];
        let done = preparer.load(&samples[number], &DecodeLimits::default(), &mut out);
        done.map(|()| out)
    };
    let first = load(0).unwrap();
    assert!(load(1).is_err());
    assert_eq!(load(2).unwrap(), first);
    let refused = preparer.load_with(
        &samples[0],
        &DecodeLimits::default(),
        |planes| {
            assert_eq!((planes.width, planes.channels), (40, 2));
            load(1).map(|_| Variation::default())
        },
        &mut vec![0.0; 2 * 64],
    );
    assert!(refused.unwrap_err().to_string().contains("sample `b`"));
    assert_eq!(load(0).unwrap(), first);
}

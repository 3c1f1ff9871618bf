//! Tests of preprocessing: values of the input and validation.

use super::*;
use crate::{
    Augmentation, CHANNELS, Crop, DecodeLimits, Planes, Preprocessor, Resize, find_samples,
};

#[test]
fn default_normalization_is_that_of_the_reference_experiments() {
    let preprocess = Preprocess::new(&CHANNELS[..2], 1);
    let planes = Planes {
        width: 1,
        height: 1,
        channels: 2,
        data: vec![0, 255],
    };
    let mut out = [9.0; 2];
    Preprocessor::new(preprocess.clone()).prepare(&planes, &Augmentation::default(), &mut out);
    assert_eq!(out.to_vec(), [-1.0, 1.0]);
}

#[test]
fn each_channel_has_its_own_mean_and_std() {
    let mut preprocess = Preprocess::new(&CHANNELS[..2], 1);
    preprocess.mean = vec![0.0, 1.0];
    preprocess.std = vec![1.0, 0.25];
    let planes = Planes {
        width: 1,
        height: 1,
        channels: 2,
        data: vec![51, 204],
    };
    let mut out = [9.0; 2];
    Preprocessor::new(preprocess.clone()).prepare(&planes, &Augmentation::default(), &mut out);
    assert!(
        (out[0] - 0.2).abs() < 1e-6 && (out[1] + 0.8).abs() < 1e-6,
        "{out:?}"
    );
}

#[test]
fn loads_files_as_normalized_input() {
    let dir = tempfile::tempdir().unwrap();
    for (i, channel) in CHANNELS.iter().enumerate() {
        let image = image::GrayImage::from_pixel(6, 4, image::Luma([i as u8 * 85]));
        image
            .save(dir.path().join(format!("a_{channel}.png")))
            .unwrap();
    }
    let preprocess = Preprocess::new(&CHANNELS, 2);
    let samples = find_samples(dir.path(), &preprocess.stains()).unwrap();
    let mut out = vec![9.0; preprocess.input_len()];
    Preprocessor::new(preprocess)
        .load(&samples[0], &DecodeLimits::default(), &mut out)
        .unwrap();
    let means: Vec<_> = out.chunks(4).map(|c| c.iter().sum::<f32>() / 4.0).collect();
    for (mean, wanted) in means.iter().zip([-1.0, -1.0 / 3.0, 1.0 / 3.0, 1.0]) {
        assert!((mean - wanted).abs() < 1e-6, "{means:?}");
    }
}

#[test]
fn validation_errors_name_the_field() {
    let good = Preprocess::new(&CHANNELS, 64);
    assert_eq!(good.validate(), Ok(()));
    let assert_rejected = |change: &dyn Fn(&mut Preprocess), field: &str| {
        let mut preprocess = good.clone();
        change(&mut preprocess);
        let error = preprocess.validate().unwrap_err();
        assert!(error.starts_with(&format!("`{field}`")), "{error}");
    };
    assert_rejected(&|p| p.channels.clear(), "channels");
    assert_rejected(&|p| p.channels[0] = "red/yellow".into(), "channels");
    assert_rejected(&|p| p.channels[0] = String::new(), "channels");
    assert_rejected(&|p| p.channels[0] = "blue*1".into(), "channels");
    let many = |count: usize| (0..count).map(|i| format!("s{i}")).collect();
    assert_rejected(&|p| p.channels = many(65), "channels");
    let sums = |count: usize| (0..count).map(|i| format!("a{i}+b{i}")).collect();
    assert_rejected(&|p| p.channels = sums(33), "channels");
    assert_rejected(&|p| p.channels[0] = "blue".into(), "channels");
    assert_rejected(&|p| p.size = 0, "size");
    assert_rejected(&|p| p.size = 5000, "size");
    assert_rejected(&|p| p.mean.truncate(3), "mean");
    assert_rejected(&|p| p.mean[1] = f32::NAN, "mean");
    assert_rejected(&|p| p.std[1] = 0.0, "std");
}

#[test]
fn round_trips_through_json_and_rejects_unknown_fields() {
    let preprocess = Preprocess::new(&CHANNELS, 64);
    let text = serde_json::to_string(&preprocess).unwrap();
    assert!(text.contains("\"bilinear\""), "{text}");
    assert_eq!(
        serde_json::from_str::<Preprocess>(&text).unwrap(),
        preprocess
    );
    let extra = text.replacen('{', "{\"colour\":1,", 1);
    assert!(serde_json::from_str::<Preprocess>(&extra).is_err());
}
#[test]
fn accepts_any_stain_names_and_up_to_64() {
    let plate = Preprocess::new(&["dna", "er", "rna", "agp", "mito"], 8);
    assert_eq!(plate.validate(), Ok(()));
    assert_eq!(plate.stains(), plate.channels);
    let many: Vec<String> = (0..64).map(|i| format!("stain.{i}")).collect();
    assert_eq!(Preprocess::new(&many, 8).validate(), Ok(()));
}

fn one_pixel(data: Vec<u8>) -> Planes {
    Planes {
        width: 1,
        height: 1,
        channels: data.len(),
        data,
    }
}

#[test]
fn mixes_channels_from_stains_in_order_of_appearance() {
    let preprocess = Preprocess::new(&["red/2+yellow/2", "green", "0.2*yellow+green"], 1);
    assert_eq!(preprocess.stains(), ["red", "yellow", "green"]);
    let mut out = [9.0; 3];
    Preprocessor::new(preprocess.clone()).prepare(
        &one_pixel(vec![10, 41, 200]),
        &Augmentation::default(),
        &mut out,
    );
    for (found, gray) in out.iter().zip([25.5, 200.0, 208.2]) {
        let wanted = (gray / 255.0 - 0.5) / 0.5;
        assert!((found - wanted).abs() < 1e-6, "{out:?}");
    }
}

#[test]
fn skimage_keeps_fractions_and_other_filters_round() {
    let planes = Planes {
        width: 2,
        height: 2,
        channels: 1,
        data: vec![0, 1, 0, 1],
    };
    let mut preprocess = Preprocess::new(&["a"], 4);
    (preprocess.mean, preprocess.std) = (vec![0.0], vec![1.0 / 255.0]);
    let mut out = [9.0; 16];
    for (resize, wanted) in [(Resize::Skimage, 0.25), (Resize::Bilinear, 0.0)] {
        preprocess.resize = resize;
        Preprocessor::new(preprocess.clone()).prepare(&planes, &Augmentation::default(), &mut out);
        assert!((out[5] - wanted).abs() < 1e-6, "{resize:?}: {out:?}");
    }
}

#[test]
fn augmentation_crops_transforms_and_brightens() {
    let planes = Planes {
        width: 4,
        height: 4,
        channels: 2,
        data: (0..32).collect(),
    };
    let mut preprocess = Preprocess::new(&["a", "b"], 2);
    (preprocess.mean, preprocess.std) = (vec![0.0; 2], vec![1.0 / 255.0; 2]);
    let crop = Crop {
        share: 0.5,
        left: 0.99,
        top: 0.0,
    };
    let augmentation = Augmentation {
        crop: Some(crop),
        dihedral: 1,
        gains: vec![1.0, 2.0],
    };
    let mut out = [9.0; 8];
    Preprocessor::new(preprocess.clone()).prepare(&planes, &augmentation, &mut out);
    let wanted = [3.0, 2.0, 7.0, 6.0, 38.0, 36.0, 46.0, 44.0];
    for (found, wanted) in out.iter().zip(wanted) {
        assert!((found - wanted).abs() < 1e-4, "{out:?}");
    }
}

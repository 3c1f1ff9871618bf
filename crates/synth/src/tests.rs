//! Tests of the synthetic samples: determinism, files, and location of each class.

use std::cell::Cell as Counter;

use super::*;
use rgby_data::{Dataset, Images};
use rgby_imaging::{DecodeLimits, read_sample};

fn config(count: usize, size: u32, classes: &[u16]) -> SynthConfig {
    SynthConfig {
        count,
        size,
        seed: 5,
        classes: classes.to_vec(),
    }
}

/// Mean of green over the pixels (red, green, blue, yellow) that `filter` selects, for one class.
fn mean_green(class: u16, filter: fn([u8; 4]) -> bool) -> f64 {
    let (mut sum, mut count) = (0u64, 0u64);
    for index in 0..4 {
        let planes = sample(&config(1, 128, &[class]), index).unwrap().planes;
        for i in 0..planes.plane_len() {
            let pixel = [0, 1, 2, 3].map(|c| planes.data[c * planes.plane_len() + i]);
            if filter(pixel) {
                sum += u64::from(pixel[1]);
                count += 1;
            }
        }
    }
    assert!(count > 500, "{count} pixels");
    sum as f64 / count as f64
}

fn in_nucleus([_, _, blue, _]: [u8; 4]) -> bool {
    blue > 100
}

fn in_cytoplasm([_, _, blue, yellow]: [u8; 4]) -> bool {
    blue < 30 && yellow > 35
}

#[test]
fn samples_depend_on_seed_and_number_only() {
    let all = SynthConfig {
        size: 64,
        ..SynthConfig::default()
    };
    let first = sample(&all, 3).unwrap();
    assert_eq!(
        first,
        sample(
            &SynthConfig {
                count: 4,
                ..all.clone()
            },
            3
        )
        .unwrap()
    );
    assert_ne!(first.planes, sample(&all, 4).unwrap().planes);
    let other_seed = sample(&SynthConfig { seed: 1, ..all }, 3).unwrap();
    assert_ne!((first.id, first.planes), (other_seed.id, other_seed.planes));
}

#[test]
fn protein_is_at_the_location_of_its_class() {
    for nuclear in [0, 1, 2, 4] {
        let (inside, outside) = (
            mean_green(nuclear, in_nucleus),
            mean_green(nuclear, in_cytoplasm),
        );
        assert!(
            inside > 2.0 * outside,
            "class {nuclear}: {inside} inside, {outside} outside"
        );
    }
    for cytoplasmic in [6, 14, 23, 25] {
        let inside = mean_green(cytoplasmic, in_nucleus);
        let outside = mean_green(cytoplasmic, in_cytoplasm);
        assert!(
            outside > 1.8 * inside,
            "class {cytoplasmic}: {inside} inside, {outside} outside"
        );
    }
    let red = mean_green(14, |[red, _, blue, _]| red > 120 && blue < 30);
    let beside = mean_green(14, |[red, _, blue, yellow]| {
        red < 50 && blue < 30 && yellow > 20
    });
    assert!(
        red > 2.0 * beside,
        "microtubules follow red: {red} on it, {beside} beside it"
    );
}

#[test]
fn every_class_has_a_distinct_pattern() {
    let greens: Vec<_> = (0..28)
        .map(|class| {
            let sample = sample(&config(1, 96, &[class]), 0).unwrap();
            assert_eq!(sample.targets, [class]);
            let green = sample.planes.plane(1).unwrap().to_vec();
            let bright = green.iter().filter(|&&value| value > 90).count();
            assert!(bright >= 10, "class {class} shows {bright} bright pixels");
            green
        })
        .collect();
    for (i, a) in greens.iter().enumerate() {
        for b in &greens[i + 1..] {
            let differ = a
                .iter()
                .zip(b)
                .filter(|(x, y)| x.abs_diff(**y) > 30)
                .count();
            assert!(differ > 20, "two classes look alike");
        }
    }
}

#[test]
fn every_class_occurs_and_frequent_ones_more_often() {
    let all: Vec<u16> = (0..28).collect();
    let mut counts = [0; 28];
    for index in 0..600 {
        let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
        let drawn = draw_classes(&all, index, &mut rng);
        assert!((1..=3).contains(&drawn.len()));
        assert!(drawn.is_sorted() && (index >= 28 || drawn.contains(&all[index])));
        for class in drawn {
            counts[usize::from(class)] += 1;
        }
    }
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    assert!(counts[0] > 3 * counts[27], "{counts:?}");
}

#[test]
fn a_written_data_set_contains_the_drawn_samples() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/data");
    let config = config(5, 40, &[0, 21]);
    let finished = Counter::new(0);
    generate(&out, &config, &|count| finished.set(count)).unwrap();
    assert_eq!(finished.get(), 5);
    let channels = CHANNELS.map(String::from);
    let (images, labels) = (out.join("images"), out.join("labels.csv"));
    let data = Dataset::open(&Images::plain(&images), &labels, &channels, 28).unwrap();
    assert_eq!(data.len(), 5);
    for (index, file) in data.samples.iter().enumerate() {
        let drawn = sample(&config, index).unwrap();
        assert_eq!(
            (&file.id, &data.targets[index]),
            (&drawn.id, &drawn.targets)
        );
        assert_eq!(
            read_sample(file, &DecodeLimits::default()).unwrap(),
            drawn.planes
        );
    }
    let entries = fs::read_dir(&out).unwrap().count();
    assert_eq!(entries, 2, "nothing but images and labels.csv");

    let again = generate(&out, &config, &|_| ()).unwrap_err();
    assert!(matches!(again, SynthError::Exists(_)), "{again}");
}

#[test]
fn invalid_configs_are_rejected_before_writing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("data");
    let good = config(1, 64, &[0]);
    for (bad, field) in [
        (
            SynthConfig {
                count: 0,
                ..good.clone()
            },
            "`count`",
        ),
        (
            SynthConfig {
                size: 31,
                ..good.clone()
            },
            "`size`",
        ),
        (
            SynthConfig {
                size: 5000,
                ..good.clone()
            },
            "`size`",
        ),
        (
            SynthConfig {
                classes: vec![],
                ..good.clone()
            },
            "`classes`",
        ),
        (
            SynthConfig {
                classes: vec![28],
                ..good.clone()
            },
            "`classes`",
        ),
    ] {
        let error = generate(&out, &bad, &|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(field), "{error}");
    }
    assert!(!out.exists());
    fs::write(&out, "a file").unwrap();
    let error = generate(&out, &good, &|_| ()).unwrap_err();
    assert!(matches!(error, SynthError::Io { .. }), "{error}");
}

//! The resize of scikit-image 0.13, which the reference experiments used.

use super::Planes;

/// Stretches each channel to `size`×`size` as `skimage.transform.resize(image, (size, size),
/// order=1, mode='constant', anti_aliasing=False, preserve_range=True)` does with an image
/// `[H, W, C]` of floats. Returns `[channels, size, size]`, 0–255.
///
/// Pixel `i` of the result lies at `(i + 0.5) · from / size − 0.5` of the source, and is
/// interpolated between the two pixels next to it in each direction. Shrinking skips pixels. What
/// lies outside the image counts as 0; the result is then raised to the smallest value of all
/// channels, so that only images with a dark pixel have a darker border.
pub(super) fn resize(planes: &Planes, size: u32) -> Vec<f32> {
    let (columns, rows) = (taps(planes.width, size), taps(planes.height, size));
    let lowest = f32::from(planes.data.iter().copied().min().unwrap_or(0));
    let mut out = Vec::with_capacity(planes.channels * columns.len() * rows.len());
    for plane in planes.data.chunks_exact(planes.plane_len().max(1)) {
        for row in &rows {
            let line = |y: usize| &plane[y * planes.width as usize..][..planes.width as usize];
            let (above, below) = (line(row.low), line(row.high));
            for column in &columns {
                let along = |line: &[u8]| {
                    column.low_weight * f32::from(line[column.low])
                        + column.high_weight * f32::from(line[column.high])
                };
                let value = row.low_weight * along(above) + row.high_weight * along(below);
                out.push(value.max(lowest));
            }
        }
    }
    out
}

/// The two source pixels of one target pixel in one direction.
struct Tap {
    low: usize,
    low_weight: f32,
    high: usize,
    high_weight: f32,
}

fn taps(from: u32, to: u32) -> Vec<Tap> {
    let scale = f64::from(from) / f64::from(to);
    let inside = 0..i64::from(from);
    let place = |at: i64, weight: f64| {
        if inside.contains(&at) {
            (at as usize, weight as f32)
        } else {
            (0, 0.0)
        }
    };
    let tap = |target: u32| {
        let at = (f64::from(target) + 0.5) * scale - 0.5;
        let (floor, part) = (at.floor() as i64, at - at.floor());
        let (low, low_weight) = place(floor, 1.0 - part);
        let (high, high_weight) = place(floor + 1, part);
        Tap {
            low,
            low_weight,
            high,
            high_weight,
        }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(width: u32, height: u32, data: &[u8], size: u32) -> Vec<f32> {
        let planes = Planes {
            width,
            height,
            channels: data.len() / (width * height) as usize,
            data: data.to_vec(),
        };
        resize(&planes, size)
    }

    #[test]
    fn the_border_blends_with_zero_but_not_below_the_darkest_pixel() {
        // Target pixels lie at −0.25, 0.25, 0.75 and 1.25 in each direction.
        let border = resized(2, 2, &[0, 100, 0, 100], 4);
        assert_eq!(border[..4], [0.0, 18.75, 56.25, 56.25]);
        assert_eq!(border[4..8], [0.0, 25.0, 75.0, 75.0]);
        assert_eq!(resized(2, 2, &[100; 4], 4), [100.0; 16]);
    }

    #[test]
    fn shrinking_skips_pixels_and_the_same_size_is_a_copy() {
        let row: Vec<u8> = (0..36)
            .map(|i| if i % 6 % 3 == 1 { 90 } else { 0 })
            .collect();
        assert_eq!(resized(6, 6, &row, 2), [90.0; 4]);
        let data = [7, 0, 255, 13];
        assert_eq!(resized(2, 2, &data, 2), data.map(f32::from));
    }

    #[derive(serde::Deserialize)]
    struct Case {
        width: u32,
        height: u32,
        size: u32,
        input: Vec<u8>,
        output: Vec<f32>,
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    /// The golden's maker: `tests/golden/skimage_resize.py`.
    #[test]
    fn every_pixel_is_that_of_skimage() {
        let text = include_str!("../../../tests/golden/skimage_resize.json");
        let golden: Golden = serde_json::from_str(text).unwrap();
        assert_eq!(golden.cases.len(), 6);
        for case in golden.cases {
            let name = format!("{}×{} to {}", case.width, case.height, case.size);
            let found = resized(case.width, case.height, &case.input, case.size);
            assert_eq!(found.len(), case.output.len(), "{name}");
            for (at, (found, wanted)) in found.iter().zip(&case.output).enumerate() {
                let close = (found - wanted).abs() <= 1e-3;
                assert!(close, "{name}, value {at}: {found} for {wanted}");
            }
        }
    }
}

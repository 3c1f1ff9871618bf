//! Occlusion maps: which parts of an image a prediction depends on.
//!
//! Each cell of a grid is made black in turn, and the image is scored again (Zeiler & Fergus 2014,
//! "Visualizing and Understanding Convolutional Networks", section 4.2). This needs only the
//! model's probabilities, so it works for every head, precision and exporter. Class activation maps
//! would need the feature map as an additional output, and a linear layer after global pooling.

use image::{Rgba, RgbaImage};

use super::Preprocess;

/// Colours of a map, from dark to light, so that it is readable in gray too. The same as on the
/// server's page (`serve/page/picture.js`).
const RAMP: [[f32; 3]; 4] = [
    [70.0, 20.0, 120.0],
    [200.0, 55.0, 95.0],
    [250.0, 150.0, 50.0],
    [255.0, 240.0, 150.0],
];
/// Opacity of the lightest cells, 0–1.
const OPACITY: f32 = 0.75;

/// Makes one cell of a `grid`×`grid` grid black in all channels of an input `[C, S, S]` that was
/// normalized by `preprocess`.
pub fn hide_cell(
    image: &mut [f32],
    preprocess: &Preprocess,
    grid: usize,
    [row, column]: [usize; 2],
) {
    let side = preprocess.size as usize;
    let bounds = |cell: usize| cell * side / grid..(cell + 1) * side / grid;
    let normalization = preprocess.mean.iter().zip(&preprocess.std);
    for (plane, (mean, std)) in image.chunks_exact_mut(side * side).zip(normalization) {
        let black = (0.0 - mean) / std;
        for y in bounds(row) {
            plane[y * side..][bounds(column)].fill(black);
        }
    }
}

/// Draws the values of a square grid's cells, row by row, as a transparent image of
/// `width`×`height`: fully transparent where a value is 0 or less, the lightest colour at `max`.
#[must_use]
pub fn draw_cells(cells: &[f32], max: f32, [width, height]: [u32; 2]) -> RgbaImage {
    let grid = cells.len().isqrt() as u32;
    let cell = |at: u32, side: u32| (at * grid / side.max(1)).min(grid.saturating_sub(1));
    RgbaImage::from_fn(width, height, |x, y| {
        let at = cell(y, height) * grid + cell(x, width);
        let value = cells.get(at as usize).copied().unwrap_or(0.0);
        // Also false for NaN.
        colour(if value > 0.0 {
            (value / max).min(1.0)
        } else {
            0.0
        })
    })
}

/// Returns the colour of a value 0–1. Values near 0 are transparent, so that they do not cover the
/// image.
fn colour(value: f32) -> Rgba<u8> {
    let position = value * (RAMP.len() - 1) as f32;
    let low = (position as usize).min(RAMP.len() - 2);
    let part = |channel: usize| {
        let [from, to] = [RAMP[low][channel], RAMP[low + 1][channel]];
        (from + (to - from) * (position - low as f32)).round() as u8
    };
    let alpha = 255.0 * OPACITY * (value * 1.6).min(1.0);
    Rgba([part(0), part(1), part(2), alpha.round() as u8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_cover_each_pixel_once() {
        let preprocess = Preprocess::new(&["red", "green"], 7);
        let mut hits = vec![0; 2 * 49];
        for cell in 0..9 {
            let mut image = vec![1.0; 2 * 49];
            hide_cell(&mut image, &preprocess, 3, [cell / 3, cell % 3]);
            for (hits, value) in hits.iter_mut().zip(image) {
                // Black is -1 by this normalization.
                assert!((value.abs() - 1.0).abs() < 1e-6);
                *hits += i32::from(value < 0.0);
            }
        }
        assert_eq!(hits, vec![1; 2 * 49]);
    }

    #[test]
    fn cells_are_drawn_at_their_position() {
        let map = draw_cells(&[0.0, 2.0, -1.0, 1.0], 2.0, [6, 4]);
        assert_eq!(map.get_pixel(0, 0).0[3], 0);
        assert_eq!(map.get_pixel(2, 1).0[3], 0);
        assert_eq!(map.get_pixel(3, 0).0, [255, 240, 150, 191]);
        assert_eq!(map.get_pixel(5, 1), map.get_pixel(3, 0));
        assert_eq!(map.get_pixel(0, 3).0[3], 0);
        let half = map.get_pixel(5, 3).0;
        assert_eq!(half[..3], [225, 103, 73]);
        assert_eq!(half[3], 153);
        assert_eq!(draw_cells(&[], 1.0, [2, 2]).get_pixel(1, 1).0[3], 0);
        // NaN and a scale of 0 are transparent and do not panic.
        assert_eq!(draw_cells(&[f32::NAN], 0.0, [1, 1]).get_pixel(0, 0).0[3], 0);
    }
}

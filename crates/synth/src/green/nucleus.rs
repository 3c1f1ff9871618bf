//! Patterns in and around the nucleus.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::fill;
use crate::canvas::{Canvas, falloff};
use crate::cells::{Cell, PixelLocation};
use crate::stains::Scene;

/// Returns 1 inside of an interphase nucleus and 0 outside, with a smooth step.
fn inside(location: &PixelLocation, cell: &Cell) -> f32 {
    if cell.mitotic {
        0.0
    } else {
        falloff(location.envelope, -0.01, 0.004)
    }
}

/// Returns 1 inside of a nucleolus and 0 outside, with a smooth step.
fn in_nucleolus(location: &PixelLocation, cell: &Cell) -> f32 {
    let blobs = cell.nucleoli.iter();
    let depth = blobs.map(|&(centre, radius)| {
        falloff(location.point.distance(centre), 0.7 * radius, 1.15 * radius)
    });
    depth.fold(0.0, f32::max)
}

pub(super) fn nucleoplasm(scene: &Scene, canvas: &mut Canvas) {
    fill(scene, canvas, |location, cell| {
        let texture = 0.5 + 0.5 * scene.grain.at(location.point);
        inside(location, cell) * texture * (1.0 - 0.75 * in_nucleolus(location, cell))
    });
}

pub(super) fn membrane(scene: &Scene, canvas: &mut Canvas) {
    let pixel = 1.0 / scene.field.size as f32;
    let width = (2.2 * pixel).max(0.011);
    fill(scene, canvas, |location, cell| {
        if cell.mitotic {
            return 0.1;
        }
        let rim = falloff((location.envelope + 0.004).abs(), 0.3 * width, width);
        rim.max(0.14 * inside(location, cell))
    });
}

pub(super) fn nucleoli(scene: &Scene, canvas: &mut Canvas) {
    fill(scene, canvas, |location, cell| {
        inside(location, cell) * in_nucleolus(location, cell).max(0.08)
    });
}

pub(super) fn fibrillar_center(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (_, cell) in scene.field.interphase() {
        for &(centre, radius) in &cell.nucleoli {
            for _ in 0..rng.random_range(3..6) {
                let angle = rng.random_range(0.0..std::f32::consts::TAU);
                let at = centre.walk(angle, radius * rng.random_range(0.3..0.9));
                canvas.disc(at, 0.0045, cell.level);
            }
        }
    }
    fill(scene, canvas, |location, cell| {
        0.12 * in_nucleolus(location, cell)
    });
}

pub(super) fn speckles(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (_, cell) in scene.field.interphase() {
        for _ in 0..rng.random_range(22..34) {
            let at = cell.nucleus.inside(0.88, rng);
            let free = cell
                .nucleoli
                .iter()
                .all(|&(centre, radius)| at.distance(centre) > radius);
            if free {
                let brightness = cell.level * rng.random_range(0.6..1.0);
                canvas.disc(at, rng.random_range(0.004..0.008), brightness);
            }
        }
    }
    fill(scene, canvas, |location, cell| {
        0.16 * inside(location, cell)
    });
}

pub(super) fn bodies(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (_, cell) in scene.field.interphase() {
        for _ in 0..rng.random_range(3..6) {
            canvas.disc(
                cell.nucleus.inside(0.8, rng),
                rng.random_range(0.007..0.010),
                cell.level,
            );
        }
    }
    fill(scene, canvas, |location, cell| {
        0.06 * inside(location, cell)
    });
}

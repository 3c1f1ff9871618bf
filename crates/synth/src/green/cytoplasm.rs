//! Patterns in the cytoplasm and at the outline of the cell: membranes, vesicles, spots.

use std::f32::consts::TAU;
use std::ops::Range;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::fill;
use crate::canvas::{Canvas, Point, falloff};
use crate::cells::{Cell, PixelLocation};
use crate::stains::Scene;

/// Vesicles or bodies that are drawn as dots.
pub(super) struct Dots {
    /// Number per cell.
    count: Range<usize>,
    /// Radius in fractions of the image's side.
    radius: Range<f32>,
    /// Maximum distance from the nucleus in cell radii.
    reach: f32,
}

/// Many and tiny, everywhere.
pub(super) const PEROXISOMES: Dots = Dots {
    count: 60..85,
    radius: 0.0035..0.0045,
    reach: 2.0,
};
/// Of all sizes, everywhere.
pub(super) const ENDOSOMES: Dots = Dots {
    count: 16..26,
    radius: 0.0045..0.010,
    reach: 2.0,
};
/// Large, crowded around the nucleus.
pub(super) const LYSOSOMES: Dots = Dots {
    count: 18..26,
    radius: 0.008..0.011,
    reach: 0.22,
};
/// Few and distinct.
pub(super) const BODIES: Dots = Dots {
    count: 4..8,
    radius: 0.009..0.012,
    reach: 2.0,
};

pub(super) fn dots(scene: &Scene, canvas: &mut Canvas, kind: &Dots, rng: &mut ChaCha8Rng) {
    for (i, cell) in scene.field.interphase() {
        let count = rng.random_range(kind.count.clone());
        for point in scene.field.cytoplasm_points(i, count, kind.reach, rng) {
            let brightness = cell.level * rng.random_range(0.7..1.0);
            canvas.disc(point, rng.random_range(kind.radius.clone()), brightness);
        }
    }
}

/// Returns 1 in the cytoplasm, 0 in the nucleus and outside of the cell.
fn in_cytoplasm(location: &PixelLocation) -> f32 {
    falloff(-location.envelope, -0.006, 0.006) * falloff(-location.edge, -0.014, 0.0)
}

pub(super) fn cytosol(scene: &Scene, canvas: &mut Canvas) {
    fill(scene, canvas, |location, _| {
        let texture = 0.35 + 0.5 * scene.grain.at(location.point);
        texture * (0.08 + 0.92 * in_cytoplasm(location)) * falloff(-location.edge, -0.014, 0.0)
    });
}

pub(super) fn reticulum(scene: &Scene, canvas: &mut Canvas) {
    fill(scene, canvas, |location, _| 1.1 * scene.reticulum(location));
}

/// Returns the brightness of a line at distance 0 that is at least about two pixels wide.
fn line(scene: &Scene, distance: f32) -> f32 {
    let width = (1.8 / scene.field.size as f32).max(0.0095);
    falloff(distance, 0.4 * width, width)
}

pub(super) fn plasma_membrane(scene: &Scene, canvas: &mut Canvas) {
    fill(scene, canvas, |location, _| {
        let texture = 0.75 + 0.5 * (scene.grain.at(location.point) - 0.5);
        (texture * line(scene, location.edge)).max(0.1)
    });
}

pub(super) fn junctions(scene: &Scene, canvas: &mut Canvas) {
    fill(scene, canvas, |location, _| {
        line(scene, location.junction).max(0.04)
    });
}

/// A ribbon of short stacks along one side of the nucleus.
pub(super) fn golgi(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (_, cell) in scene.field.interphase() {
        let middle = cell.nucleus.centre.angle_to(cell.mtoc);
        for _ in 0..rng.random_range(11..16) {
            let angle = middle + rng.random_range(-0.55..0.55);
            let at = cell.nucleus.point(angle, rng.random_range(0.010..0.045));
            let heading = angle + TAU / 4.0 + rng.random_range(-0.7..0.7);
            let bend = at.walk(heading, rng.random_range(0.008..0.016));
            let end = bend.walk(heading + rng.random_range(-0.9..0.9), 0.012);
            canvas.stroke(
                &[at, bend, end],
                0.0105,
                cell.level * rng.random_range(0.7..1.0),
            );
        }
    }
}

/// One fuzzy spot with a star of short rays.
pub(super) fn organizing_center(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (i, cell) in scene.field.interphase() {
        let from_centre = |tubule: &&Vec<Point>| tubule[0].distance(cell.mtoc) < 0.006;
        for tubule in scene.tubules[i].iter().filter(from_centre).step_by(2) {
            let ray = &tubule[..tubule.len().min(rng.random_range(3..5))];
            canvas.stroke(ray, 0.004, 0.45 * cell.level);
        }
        canvas.disc(cell.mtoc, 0.015, cell.level);
    }
    faint_cytosol(scene, canvas);
}

/// Two sharp spots side by side.
pub(super) fn centrosome(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (_, cell) in scene.field.interphase() {
        let angle = rng.random_range(0.0..TAU);
        for end in [cell.mtoc.walk(angle, 0.009), cell.mtoc.walk(angle, -0.009)] {
            canvas.disc(end, 0.007, 1.1 * cell.level);
        }
    }
    faint_cytosol(scene, canvas);
}

fn faint_cytosol(scene: &Scene, canvas: &mut Canvas) {
    fill(scene, canvas, |location, _| 0.05 * in_cytoplasm(location));
}

pub(super) fn lipid_droplets(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (i, Cell { level, .. }) in scene.field.interphase() {
        let count = rng.random_range(12..20);
        for point in scene.field.cytoplasm_points(i, count, 2.0, rng) {
            canvas.ring(point, rng.random_range(0.007..0.014), 0.0055, *level);
        }
    }
}

/// One large clump beside the nucleus.
pub(super) fn aggresome(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (_, cell) in scene.field.interphase() {
        let towards = cell.nucleus.centre.angle_to(cell.mtoc);
        let middle = cell.mtoc.walk(towards, 0.012);
        for _ in 0..7 {
            let at = middle.walk(rng.random_range(0.0..TAU), rng.random_range(0.0..0.014));
            canvas.disc(at, rng.random_range(0.014..0.020), cell.level);
        }
    }
    faint_cytosol(scene, canvas);
}

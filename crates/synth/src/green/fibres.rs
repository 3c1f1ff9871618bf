//! Patterns of threads: filaments, bundles, mitochondria, and structures at their ends.

use std::f32::consts::{PI, TAU};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::fill;
use crate::canvas::{Canvas, Point};
use crate::cells::{Cell, Field};
use crate::stains::Scene;

/// A thread as a random walk with steps of 0.008.
struct RandomWalk {
    start: Point,
    /// First direction in radians.
    heading: f32,
    /// Maximum number of steps.
    steps: usize,
    /// Maximum turn per step in radians.
    turn: f32,
}

impl RandomWalk {
    /// Returns the points of the thread up to the first one outside of the cytoplasm.
    fn points(self, field: &Field, cell: usize, rng: &mut ChaCha8Rng) -> Vec<Point> {
        let mut heading = self.heading;
        let mut bend = 0.0f32;
        let mut point = self.start;
        let mut points = vec![point];
        for _ in 0..self.steps {
            bend = (bend + rng.random_range(-self.turn..self.turn)).clamp(-self.turn, self.turn);
            heading += bend;
            point = point.walk(heading, 0.008);
            if !field.in_cytoplasm(cell, point, 0.004) {
                break;
            }
            points.push(point);
        }
        points
    }
}

pub(super) fn microtubules(scene: &Scene, canvas: &mut Canvas) {
    for (i, cell) in scene.field.cells.iter().enumerate() {
        scene.draw_tubules(i, canvas, 0.95 * cell.level);
    }
}

pub(super) fn microtubule_ends(scene: &Scene, canvas: &mut Canvas) {
    for (i, cell) in scene.field.interphase() {
        for tubule in &scene.tubules[i] {
            let tail = &tubule[tubule.len() - 2..];
            canvas.stroke(tail, 0.0075, cell.level);
        }
    }
}

/// Thick wavy threads around the nucleus.
pub(super) fn intermediate(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (i, cell) in scene.field.interphase() {
        for _ in 0..rng.random_range(16..22) {
            let angle = rng.random_range(0.0..TAU);
            let start = cell.nucleus.point(angle, rng.random_range(0.008..0.05));
            let side = if rng.random() { 1.0 } else { -1.0 };
            let heading = angle + side * rng.random_range(0.7..1.6);
            let walk = RandomWalk {
                start,
                heading,
                steps: rng.random_range(14..30),
                turn: 0.4,
            };
            let thread = walk.points(&scene.field, i, rng);
            canvas.stroke(&thread, 0.0085, cell.level * rng.random_range(0.5..0.95));
        }
    }
}

/// Straight parallel stress fibres across the whole cell.
pub(super) fn actin(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (i, cell) in scene.field.interphase() {
        let count = rng.random_range(11..15);
        for k in 0..count {
            let part = (k as f32 + rng.random_range(0.1..0.9)) / count as f32;
            let centre = cell.outline.centre;
            let middle = centre.walk(cell.axis + PI / 2.0, (2.0 * part - 1.0) * cell.radius);
            let tilt = cell.axis + rng.random_range(-0.05..0.05);
            let points = (-30..=30i8).map(|step| middle.walk(tilt, 0.01 * f32::from(step)));
            let fibre: Vec<_> = points
                .filter(|point| belongs(&scene.field, i, *point))
                .collect();
            canvas.stroke(&fibre, 0.0055, cell.level * rng.random_range(0.5..1.0));
        }
    }
    fill(scene, canvas, |location, _| {
        if location.edge < 0.008 { 0.35 } else { 0.06 }
    });
}

/// Returns whether a point is in a cell and not close to its outline.
fn belongs(field: &Field, cell: usize, point: Point) -> bool {
    field
        .location(point)
        .is_some_and(|location| location.cell == Some(cell as u8) && location.edge > 0.01)
}

/// Short dashes at the outline that point inwards.
pub(super) fn focal_adhesions(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (i, cell) in scene.field.interphase() {
        let count = rng.random_range(22..30);
        for k in 0..count {
            let angle = TAU * (k as f32 + rng.random_range(0.0..0.6)) / count as f32;
            // Neighbouring cells may cover the outline: search inwards for the edge of the cell.
            let outer = cell.outline.radius(angle);
            let rim = (0..40)
                .map(|step| outer - 0.004 * step as f32)
                .find(|&distance| {
                    distance > 0.0
                        && belongs(&scene.field, i, cell.outline.centre.walk(angle, distance))
                });
            if let Some(distance) = rim {
                let start = cell.outline.centre.walk(angle, distance);
                let heading = angle + PI + rng.random_range(-0.3..0.3);
                let end = start.walk(heading, rng.random_range(0.016..0.03));
                canvas.stroke(
                    &[start, end],
                    0.009,
                    cell.level * rng.random_range(0.7..1.0),
                );
            }
        }
    }
    fill(scene, canvas, |_, _| 0.04);
}

/// A bar across the border of the closest pair of cells, for up to two pairs.
pub(super) fn cytokinetic_bridge(scene: &Scene, canvas: &mut Canvas) {
    let cells = &scene.field.cells;
    let mut pairs: Vec<(&Cell, &Cell)> = Vec::new();
    for (i, a) in cells.iter().enumerate() {
        pairs.extend(cells[i + 1..].iter().map(|b| (a, b)));
    }
    let gap = |(a, b): &(&Cell, &Cell)| a.outline.centre.distance(b.outline.centre);
    pairs.sort_by(|p, q| gap(p).total_cmp(&gap(q)));
    for (a, b) in pairs.into_iter().take(2) {
        let angle = a.nucleus.centre.angle_to(b.nucleus.centre);
        let middle = a
            .nucleus
            .point(angle, 0.0)
            .midpoint(b.nucleus.point(angle + PI, 0.0));
        let bar = [middle.walk(angle, -0.05), middle.walk(angle, 0.05)];
        canvas.stroke(&bar, 0.012, 1.0);
        canvas.disc(middle, 0.014, 1.1);
    }
    fill(scene, canvas, |_, _| 0.05);
}

pub(super) fn mitotic_spindle(scene: &Scene, canvas: &mut Canvas) {
    for (i, cell) in scene
        .field
        .cells
        .iter()
        .enumerate()
        .filter(|(_, cell)| cell.mitotic)
    {
        for tubule in &scene.tubules[i] {
            canvas.stroke(tubule, 0.005, 0.9);
        }
        for side in [0.0, PI] {
            canvas.disc(
                cell.outline
                    .centre
                    .walk(cell.axis + side, 0.6 * cell.radius),
                0.011,
                1.1,
            );
        }
    }
    fill(
        scene,
        canvas,
        |_, cell| if cell.mitotic { 0.12 } else { 0.04 },
    );
}

/// Short curved threads that mostly point away from the nucleus.
pub(super) fn mitochondria(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (i, cell) in scene.field.interphase() {
        let count = rng.random_range(48..64);
        for start in scene.field.cytoplasm_points(i, count, 0.6, rng) {
            let heading = cell.nucleus.centre.angle_to(start) + rng.random_range(-1.3..1.3);
            let walk = RandomWalk {
                start,
                heading,
                steps: rng.random_range(3..7),
                turn: 0.5,
            };
            let body = walk.points(&scene.field, i, rng);
            canvas.stroke(&body, 0.0075, cell.level * rng.random_range(0.6..1.0));
        }
    }
}

/// A rod or a ring in each cell.
pub(super) fn rods_and_rings(scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    for (i, cell) in scene.field.interphase() {
        for point in scene
            .field
            .cytoplasm_points(i, rng.random_range(1..3), 2.0, rng)
        {
            let end = point.walk(rng.random_range(0.0..TAU), rng.random_range(0.05..0.08));
            if rng.random() && scene.field.in_cytoplasm(i, end, 0.01) {
                canvas.stroke(&[point, end], 0.012, cell.level);
            } else {
                canvas.ring(point, rng.random_range(0.016..0.022), 0.009, cell.level);
            }
        }
    }
    fill(scene, canvas, |_, _| 0.04);
}

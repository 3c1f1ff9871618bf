//! The three reference stains: microtubules (red), nucleus (blue), endoplasmic reticulum (yellow).

use std::f32::consts::{PI, TAU};

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::canvas::{Canvas, Noise, Point, falloff};
use super::cells::{Cell, Field, PixelLocation};

/// Thickness of a microtubule.
const TUBULE: f32 = 0.0045;
/// Step length along a microtubule.
const STEP: f32 = 0.012;
/// Multiples of this angle cover all directions evenly for any count.
const GOLDEN_ANGLE: f32 = 2.399_963;

/// A field with the structures that are common to stains and proteins.
#[derive(Debug)]
pub(super) struct Scene {
    pub field: Field,
    /// Microtubules of each cell, from the organizing centre outwards.
    pub tubules: Vec<Vec<Vec<Point>>>,
    /// Fine texture: chromatin, cytosol.
    pub grain: Noise,
    /// Net of the endoplasmic reticulum.
    reticulum: Noise,
}

impl Scene {
    pub fn new(field: Field, rng: &mut ChaCha8Rng) -> Self {
        let tubules = field.cells.iter().enumerate();
        let tubules = tubules.map(|(i, cell)| {
            if cell.mitotic {
                spindle(cell, rng)
            } else {
                aster(&field, i, rng)
            }
        });
        let tubules = tubules.collect();
        Self {
            field,
            tubules,
            grain: Noise::new(0.022, rng),
            reticulum: Noise::new(0.021, rng),
        }
    }

    /// Returns the cell that contains a pixel.
    pub fn cell(&self, location: &PixelLocation) -> Option<&Cell> {
        location
            .cell
            .map(|index| &self.field.cells[usize::from(index)])
    }

    /// Draws the microtubules of one cell.
    pub fn draw_tubules(&self, cell: usize, canvas: &mut Canvas, brightness: f32) {
        for (i, tubule) in self.tubules[cell].iter().enumerate() {
            let shade = [1.0, 0.6, 0.8][i % 3];
            canvas.stroke(tubule, TUBULE, brightness * shade);
        }
    }

    /// Returns the brightness of the endoplasmic reticulum, 0–1: a net, densest around the nucleus.
    pub fn reticulum(&self, location: &PixelLocation) -> f32 {
        let Some(cell) = self.cell(location) else {
            return 0.0;
        };
        let outside = location.envelope.max(0.0) / cell.radius;
        let reach = if cell.mitotic {
            0.45
        } else {
            0.25 + 0.75 * (-outside / 0.3).exp()
        };
        let net = 0.3 + 0.7 * self.reticulum.mesh(location.point);
        let in_nucleus = falloff(-location.envelope, 0.0, 0.008);
        reach * net * falloff(-location.edge, -0.02, 0.0) * (0.12 + 0.88 * in_nucleus)
    }

    /// Draws the red stain.
    pub fn red(&self, size: usize) -> Canvas {
        let mut canvas = Canvas::new(size);
        for (i, cell) in self.field.cells.iter().enumerate() {
            self.draw_tubules(i, &mut canvas, if cell.mitotic { 0.95 } else { 0.75 });
        }
        canvas.add(|i| {
            let location = &self.field.locations[i];
            let Some(cell) = self.cell(location) else {
                return 0.0;
            };
            let near = (-location.point.distance(cell.mtoc) / (0.35 * cell.radius)).exp();
            let haze = if cell.mitotic {
                0.12
            } else {
                0.07 + 0.3 * near
            };
            let outside = 0.3 + 0.7 * falloff(-location.envelope, -0.004, 0.008);
            haze * outside
                * (0.6 + 0.8 * self.grain.at(location.point))
                * falloff(-location.edge, -0.01, 0.0)
        });
        canvas
    }

    /// Draws the blue stain: textured, with dark nucleoli.
    pub fn blue(&self, size: usize) -> Canvas {
        let mut canvas = Canvas::new(size);
        canvas.add(|i| {
            let location = &self.field.locations[i];
            let Some(cell) = self.cell(location) else {
                return 0.0;
            };
            let inside = falloff(location.envelope, -0.012, 0.004);
            if inside == 0.0 {
                return 0.015;
            }
            let chromatin = if cell.mitotic {
                1.0
            } else {
                0.42 + 0.5 * self.grain.at(location.point)
            };
            let nucleolus = cell.nucleoli.iter().map(|&(centre, radius)| {
                falloff(location.point.distance(centre), 0.5 * radius, 1.1 * radius)
            });
            inside * chromatin * (1.0 - 0.45 * nucleolus.fold(0.0, f32::max))
        });
        canvas
    }

    /// Draws the yellow stain.
    pub fn yellow(&self, size: usize) -> Canvas {
        let mut canvas = Canvas::new(size);
        canvas.add(|i| 0.9 * self.reticulum(&self.field.locations[i]));
        canvas
    }
}

/// Returns the microtubules of an interphase cell: curved paths around the nucleus towards the
/// outline. Most start at the organizing centre, some elsewhere beside the nucleus.
fn aster(field: &Field, index: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<Point>> {
    let cell = &field.cells[index];
    let turn = rng.random_range(0.0..TAU);
    let paths = (0..rng.random_range(64..84)).map(|i| {
        let angle = turn + GOLDEN_ANGLE * i as f32;
        let start = match i % 5 {
            0 | 1 => cell.nucleus.point(angle, rng.random_range(0.008..0.02)),
            _ => cell.mtoc.walk(angle, 0.004),
        };
        tubule(field, index, (start, angle), rng)
    });
    paths.filter(|points| points.len() > 1).collect()
}

/// Returns one microtubule from a start point and heading.
fn tubule(
    field: &Field,
    index: usize,
    (start, heading): (Point, f32),
    rng: &mut ChaCha8Rng,
) -> Vec<Point> {
    let nucleus = &field.cells[index].nucleus;
    let (mut point, mut heading) = (start, heading);
    let mut bend = rng.random_range(-0.1..0.1f32);
    let mut points = vec![point];
    for _ in 0..rng.random_range(12..44) {
        bend = (bend + rng.random_range(-0.06..0.06)).clamp(-0.18, 0.18);
        heading += bend;
        let next = point.walk(heading, STEP);
        let outwards = nucleus.centre.angle_to(next);
        if nucleus.centre.distance(next) - nucleus.radius(outwards) < 0.004 {
            // Follow the nucleus in the direction of the current heading.
            let side = if (heading - outwards).sin() < 0.0 {
                -1.0
            } else {
                1.0
            };
            heading = outwards + side * (PI / 2.0 - 0.2);
        }
        point = point.walk(heading, STEP);
        match field.location(point) {
            Some(location) if location.cell != Some(index as u8) || location.edge < 0.008 => break,
            _ => points.push(point),
        }
    }
    points
}

/// Returns the spindle of a dividing cell: curved paths from both poles to the metaphase plate.
fn spindle(cell: &Cell, rng: &mut ChaCha8Rng) -> Vec<Vec<Point>> {
    let centre = cell.outline.centre;
    let mut paths = Vec::new();
    for side in [0.0, PI] {
        let pole = centre.walk(cell.axis + side, 0.6 * cell.radius);
        for i in -6..=6i8 {
            let spread = f32::from(i) / 6.0 * 0.42 * cell.radius;
            let foot = centre.walk(cell.axis + PI / 2.0, spread);
            let bulge = pole.midpoint(foot).walk(cell.axis + PI / 2.0, 0.3 * spread);
            paths.push(vec![pole, bulge, foot]);
            // Short astral fibres on the far side of the pole.
            let angle = cell.axis + side + f32::from(i) * 0.22 + rng.random_range(-0.1..0.1);
            if i % 2 == 0 {
                paths.push(vec![pole, pole.walk(angle, 0.22 * cell.radius)]);
            }
        }
    }
    paths
}

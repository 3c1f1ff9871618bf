//! Geometry of a field of view: cells, nuclei, and the location of each pixel.

use std::f32::consts::TAU;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::canvas::Point;

/// Number of directions in which outlines are tabulated.
const TURN: usize = 256;

/// Larger than every distance in the field.
const FAR: f32 = 9.0;

/// A closed, slightly irregular outline around a centre.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    pub centre: Point,
    /// Radius in each direction.
    radii: Vec<f32>,
}

impl Outline {
    /// Returns an ellipse with half-axes `axes` at `angle`; `wobble` makes it irregular (0 for
    /// none).
    fn new(centre: Point, axes: [f32; 2], angle: f32, wobble: f32, rng: &mut ChaCha8Rng) -> Self {
        let waves: Vec<(f32, f32, f32)> = (2..6)
            .map(|k| {
                let k = k as f32;
                (
                    k,
                    rng.random_range(0.0..wobble.max(1e-6)) / k.sqrt(),
                    rng.random_range(0.0..TAU),
                )
            })
            .collect();
        let radius = |step: usize| {
            let turn = step as f32 / TURN as f32 * TAU;
            let (sin, cos) = (turn - angle).sin_cos();
            let ellipse = axes[0] * axes[1] / (axes[1] * cos).hypot(axes[0] * sin);
            ellipse
                * waves.iter().fold(1.0, |r, (k, size, phase)| {
                    r + size * (k * turn + phase).cos()
                })
        };
        Self {
            centre,
            radii: (0..TURN).map(radius).collect(),
        }
    }

    /// Returns the radius in direction `angle`.
    pub fn radius(&self, angle: f32) -> f32 {
        let step = (angle / TAU).rem_euclid(1.0) * TURN as f32;
        let low = step as usize % TURN;
        let part = step.fract();
        self.radii[low] * (1.0 - part) + self.radii[(low + 1) % TURN] * part
    }

    /// Returns the outline's point in direction `angle`, moved outwards by `offset`.
    pub fn point(&self, angle: f32, offset: f32) -> Point {
        self.centre.walk(angle, self.radius(angle) + offset)
    }

    /// Returns a random point inside, at most `extent` (0–1) of the way from centre to outline.
    pub fn inside(&self, extent: f32, rng: &mut ChaCha8Rng) -> Point {
        let angle = rng.random_range(0.0..TAU);
        let part = rng.random_range(0.0f32..1.0).sqrt() * extent;
        self.centre.walk(angle, self.radius(angle) * part)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub outline: Outline,
    /// Mean radius of the outline.
    pub radius: f32,
    pub nucleus: Outline,
    /// Centre and radius of each nucleolus.
    pub nucleoli: Vec<(Point, f32)>,
    /// Microtubule organizing centre, beside the nucleus.
    pub mtoc: Point,
    /// Whether the cell is in metaphase. `nucleus` is then the metaphase plate.
    pub mitotic: bool,
    /// Direction of the fibres, or of the spindle in a mitotic cell.
    pub axis: f32,
    /// Brightness of the protein relative to other cells.
    pub level: f32,
}

/// Location of a pixel relative to the cells.
#[derive(Debug, Clone, Copy)]
pub(super) struct PixelLocation {
    /// Centre of the pixel.
    pub point: Point,
    /// Index of the cell that contains it.
    pub cell: Option<u8>,
    /// Distance from the cell's outline.
    pub edge: f32,
    /// Distance from the border with the nearest neighbouring cell.
    pub junction: f32,
    /// Distance from the nuclear envelope, negative inside.
    pub envelope: f32,
}

#[derive(Debug)]
pub(super) struct Field {
    pub size: usize,
    pub cells: Vec<Cell>,
    /// One entry per pixel, row by row.
    pub locations: Vec<PixelLocation>,
}

impl Field {
    /// Creates a field of 6 to 8 cells. With `dividing`, about half of them are in metaphase.
    pub fn new(size: usize, dividing: bool, rng: &mut ChaCha8Rng) -> Self {
        let centres = scatter(rng.random_range(6..=8), rng);
        let cells: Vec<_> = centres
            .into_iter()
            .enumerate()
            .map(|(i, centre)| {
                let mitotic = dividing && (i % 2 == 0);
                if mitotic {
                    metaphase(centre, rng)
                } else {
                    interphase(centre, rng)
                }
            })
            .collect();
        let locations = (0..size * size).map(|i| {
            let coordinate = |pixel: usize| (pixel as f32 + 0.5) / size as f32;
            locate(
                &cells,
                Point {
                    x: coordinate(i % size),
                    y: coordinate(i / size),
                },
            )
        });
        let locations = locations.collect();
        Self {
            size,
            cells,
            locations,
        }
    }

    /// Returns the location of a point; `None` outside of the field.
    pub fn location(&self, point: Point) -> Option<&PixelLocation> {
        let pixel = |v: f32| {
            let v = (v * self.size as f32).floor();
            (v >= 0.0 && v < self.size as f32).then_some(v as usize)
        };
        Some(&self.locations[pixel(point.y)? * self.size + pixel(point.x)?])
    }

    /// Returns whether a point is in the cytoplasm of cell `cell`, at least `margin` from the
    /// outline and from the nucleus.
    pub fn in_cytoplasm(&self, cell: usize, point: Point, margin: f32) -> bool {
        self.location(point).is_some_and(|location| {
            location.cell == Some(cell as u8)
                && location.edge > margin
                && location.envelope > margin
        })
    }

    /// Returns up to `count` random points in the cytoplasm of a cell, at most `reach` (in cell
    /// radii) from the nuclear envelope. Cells at the image border may have fewer.
    pub fn cytoplasm_points(
        &self,
        cell: usize,
        count: usize,
        reach: f32,
        rng: &mut ChaCha8Rng,
    ) -> Vec<Point> {
        let Cell {
            outline, radius, ..
        } = &self.cells[cell];
        let candidates = (0..count * 8)
            .map(|_| outline.inside(1.0, rng))
            .filter(|point| {
                self.in_cytoplasm(cell, *point, 0.012)
                    && self
                        .location(*point)
                        .is_some_and(|location| location.envelope < reach * radius)
            });
        candidates.take(count).collect()
    }

    /// Returns the interphase cells with their indices.
    pub fn interphase(&self) -> impl Iterator<Item = (usize, &Cell)> {
        self.cells
            .iter()
            .enumerate()
            .filter(|(_, cell)| !cell.mitotic)
    }
}

/// Returns `count` well-separated points: each is the best of 12 random candidates.
fn scatter(count: usize, rng: &mut ChaCha8Rng) -> Vec<Point> {
    let mut points: Vec<Point> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut best = (-1.0, Point { x: 0.5, y: 0.5 });
        for _ in 0..12 {
            let point = Point {
                x: rng.random_range(0.06..0.94),
                y: rng.random_range(0.06..0.94),
            };
            let nearest = points.iter().map(|p| p.distance(point)).fold(FAR, f32::min);
            if nearest > best.0 {
                best = (nearest, point);
            }
        }
        points.push(best.1);
    }
    points
}

fn interphase(centre: Point, rng: &mut ChaCha8Rng) -> Cell {
    let radius = rng.random_range(0.19..0.23);
    let stretch = rng.random_range(1.0..1.3f32);
    let axis = rng.random_range(0.0..TAU);
    let outline = Outline::new(
        centre,
        [radius * stretch, radius / stretch],
        axis,
        0.12,
        rng,
    );
    let nuclear_radius = radius * rng.random_range(0.36..0.42);
    let oval = rng.random_range(1.05..1.25f32);
    let nuclear_centre = centre.walk(
        rng.random_range(0.0..TAU),
        radius * rng.random_range(0.0..0.12),
    );
    let half_axes = [nuclear_radius * oval, nuclear_radius / oval];
    let nucleus = Outline::new(
        nuclear_centre,
        half_axes,
        axis + rng.random_range(-0.5..0.5),
        0.03,
        rng,
    );
    let nucleoli = nucleoli(&nucleus, nuclear_radius, rng);
    let mtoc = nucleus.point(rng.random_range(0.0..TAU), 0.014);
    let level = rng.random_range(0.75..1.0);
    Cell {
        outline,
        radius,
        nucleus,
        nucleoli,
        mtoc,
        mitotic: false,
        axis,
        level,
    }
}

/// Returns a round dividing cell with its chromosomes in a plate across the spindle.
fn metaphase(centre: Point, rng: &mut ChaCha8Rng) -> Cell {
    let radius = rng.random_range(0.13..0.15);
    let axis = rng.random_range(0.0..TAU);
    let outline = Outline::new(centre, [radius, radius], axis, 0.02, rng);
    let nucleus = Outline::new(centre, [radius * 0.15, radius * 0.55], axis, 0.06, rng);
    let mtoc = centre.walk(axis, radius * 0.6);
    Cell {
        outline,
        radius,
        nucleus,
        nucleoli: Vec::new(),
        mtoc,
        mitotic: true,
        axis,
        level: 1.0,
    }
}

/// Returns two to four nucleoli that do not overlap.
fn nucleoli(nucleus: &Outline, radius: f32, rng: &mut ChaCha8Rng) -> Vec<(Point, f32)> {
    let mut blobs: Vec<(Point, f32)> = Vec::new();
    let wanted = rng.random_range(2..=4);
    for _ in 0..40 {
        let blob = (
            nucleus.inside(0.6, rng),
            radius * rng.random_range(0.17..0.25),
        );
        if blobs
            .iter()
            .all(|other| other.0.distance(blob.0) > 1.5 * (other.1 + blob.1))
        {
            blobs.push(blob);
        }
        if blobs.len() == wanted {
            break;
        }
    }
    blobs
}

/// Assigns a point to the cell in whose outline it is deepest. Overlapping cells touch along the
/// line of equal depth.
fn locate(cells: &[Cell], point: Point) -> PixelLocation {
    let mut first = (FAR, 1.0, 0);
    let mut second = (FAR, 1.0);
    for (i, cell) in cells.iter().enumerate() {
        let distance = cell.outline.centre.distance(point);
        if distance > 2.0 * cell.radius {
            continue;
        }
        let radius = cell.outline.radius(cell.outline.centre.angle_to(point));
        let depth = distance / radius;
        if depth < first.0 {
            second = (first.0, first.1);
            first = (depth, radius, i);
        } else if depth < second.0 {
            second = (depth, radius);
        }
    }
    let (depth, radius, index) = first;
    if depth >= 1.0 {
        return PixelLocation {
            point,
            cell: None,
            edge: -FAR,
            junction: FAR,
            envelope: FAR,
        };
    }
    let to_outline = (1.0 - depth) * radius;
    let to_neighbour = (second.0 - depth) / (1.0 / radius + 1.0 / second.1);
    let nucleus = &cells[index].nucleus;
    let envelope = nucleus.centre.distance(point) - nucleus.radius(nucleus.centre.angle_to(point));
    PixelLocation {
        point,
        cell: Some(index as u8),
        edge: to_outline.min(to_neighbour),
        // A shared border exists only if both outlines reach it.
        junction: if second.0 < 1.08 { to_neighbour } else { FAR },
        envelope,
    }
}

//! A gray canvas with soft shapes, and noise for texture.
//!
//! Positions and lengths are fractions of the image's side, so that a sample looks the same at
//! every size. Shapes thinner than a pixel are drawn one pixel wide.

use rand::Rng;
use rand::rngs::ChaCha8Rng;

/// A point or vector, in fractions of the image's side.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub x: f32,
    pub y: f32,
}

impl Point {
    /// Returns the point at `distance` in direction `angle` (radians).
    pub fn walk(self, angle: f32, distance: f32) -> Self {
        Self {
            x: self.x + angle.cos() * distance,
            y: self.y + angle.sin() * distance,
        }
    }

    pub fn distance(self, other: Self) -> f32 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    /// Returns the direction to `other` in radians.
    pub fn angle_to(self, other: Self) -> f32 {
        (other.y - self.y).atan2(other.x - self.x)
    }

    pub fn midpoint(self, other: Self) -> Self {
        Self {
            x: f32::midpoint(self.x, other.x),
            y: f32::midpoint(self.y, other.y),
        }
    }
}

/// Returns 1 up to `inner`, 0 from `outer`, and a smooth step in between.
pub(super) fn falloff(distance: f32, inner: f32, outer: f32) -> f32 {
    let t = ((outer - distance) / (outer - inner)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Brightness of each pixel, 0 (black) to 1 and beyond.
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    size: usize,
    pub data: Vec<f32>,
}

impl Canvas {
    pub fn new(size: usize) -> Self {
        Self {
            size,
            data: vec![0.0; size * size],
        }
    }

    /// Adds `brightness(pixel index)` to every pixel.
    pub fn add(&mut self, brightness: impl Fn(usize) -> f32) {
        for (i, value) in self.data.iter_mut().enumerate() {
            *value += brightness(i);
        }
    }

    /// Draws a filled disc with a soft edge.
    pub fn disc(&mut self, centre: Point, radius: f32, brightness: f32) {
        let radius = (radius * self.size as f32).max(0.7);
        self.shape([centre, centre], radius * 1.3, |distance| {
            brightness * falloff(distance, radius * 0.6, radius * 1.3)
        });
    }

    /// Draws a circle with a line of `width`.
    pub fn ring(&mut self, centre: Point, radius: f32, width: f32, brightness: f32) {
        let (radius, half) = (radius * self.size as f32, self.half_width(width));
        self.shape([centre, centre], radius + half, |distance| {
            brightness * falloff((distance - radius).abs(), half * 0.3, half)
        });
    }

    /// Draws a line of `width` through `points`, with round ends.
    pub fn stroke(&mut self, points: &[Point], width: f32, brightness: f32) {
        let half = self.half_width(width);
        for pair in points.windows(2) {
            self.shape([pair[0], pair[1]], half, |distance| {
                brightness * falloff(distance, half * 0.2, half)
            });
        }
    }

    fn half_width(&self, width: f32) -> f32 {
        (width * self.size as f32 * 0.75).max(0.9)
    }

    /// Raises each pixel within `reach` pixels of a line segment to `brightness(distance)`. The
    /// maximum is kept, so that the segments of a line join without bright spots.
    fn shape(&mut self, [a, b]: [Point; 2], reach: f32, brightness: impl Fn(f32) -> f32) {
        let scale = self.size as f32;
        let (ax, ay, bx, by) = (a.x * scale, a.y * scale, b.x * scale, b.y * scale);
        let (dx, dy) = (bx - ax, by - ay);
        let length2 = (dx * dx + dy * dy).max(1e-12);
        let span = |low: f32, high: f32| {
            let end = (high + reach).ceil().clamp(0.0, scale) as usize;
            ((low - reach).floor().max(0.0) as usize).min(end)..end
        };
        for y in span(ay.min(by), ay.max(by)) {
            for x in span(ax.min(bx), ax.max(bx)) {
                let (px, py) = (x as f32 + 0.5 - ax, y as f32 + 0.5 - ay);
                let t = ((px * dx + py * dy) / length2).clamp(0.0, 1.0);
                let (ex, ey) = (px - t * dx, py - t * dy);
                let distance2 = ex * ex + ey * ey;
                if distance2 < reach * reach {
                    let value = &mut self.data[y * self.size + x];
                    *value = value.max(brightness(distance2.sqrt()));
                }
            }
        }
    }

    /// Blurs the image like a microscope: two passes of [1 2 1]/4 in each direction at 512 pixels
    /// per side, and proportionally for other sizes.
    pub fn soften(&mut self) {
        for _ in 0..(self.size as f32 / 512.0 * 2.0).round() as usize {
            self.soften_once();
        }
    }

    fn soften_once(&mut self) {
        let n = self.size;
        for row in self.data.chunks_exact_mut(n) {
            let mut previous = row[0];
            for x in 0..n {
                let here = row[x];
                row[x] = 0.25 * (previous + row[(x + 1).min(n - 1)]) + 0.5 * here;
                previous = here;
            }
        }
        let mut previous = self.data[..n].to_vec();
        for y in 0..n {
            for (x, above) in previous.iter_mut().enumerate() {
                let here = self.data[y * n + x];
                let below = self.data[(y + 1).min(n - 1) * n + x];
                self.data[y * n + x] = 0.25 * (*above + below) + 0.5 * here;
                *above = here;
            }
        }
    }

    /// Simulates a camera: returns `gain` times the brightness plus background and shot noise, in
    /// 0–255.
    pub fn expose(&self, gain: f32, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let mut pixel = |&value: &f32| {
            // The sum of four uniform bytes is nearly normal: mean 510, standard deviation 147.8.
            let sum: u32 = rng
                .next_u32()
                .to_le_bytes()
                .iter()
                .map(|b| u32::from(*b))
                .sum();
            let normal = (sum as f32 - 510.0) / 147.8;
            let light = 0.012 + gain * value.min(1.2);
            let noisy = light + normal * (0.0012 * light + 0.000_02).sqrt();
            (noisy * 255.0).clamp(0.0, 255.0) as u8
        };
        self.data.iter().map(&mut pixel).collect()
    }
}

/// Value noise with two octaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noise {
    seed: u32,
    cells: f32,
}

impl Noise {
    /// `grain` is the cell size of the coarser octave, in fractions of the image's side.
    pub fn new(grain: f32, rng: &mut ChaCha8Rng) -> Self {
        Self {
            seed: rng.next_u32(),
            cells: 1.0 / grain,
        }
    }

    /// Returns the brightness at a point, 0–1, around 0.5.
    pub fn at(self, point: Point) -> f32 {
        let (x, y) = (point.x * self.cells, point.y * self.cells);
        0.65 * self.octave(x, y, 0) + 0.35 * self.octave(2.0 * x, 2.0 * y, 1)
    }

    /// Returns the brightness of a net of threads, 0–1: bright where the noise is near 0.5.
    pub fn mesh(self, point: Point) -> f32 {
        let (x, y) = (point.x * self.cells, point.y * self.cells);
        let ridge = |value: f32| 1.0 - (2.0 * value - 1.0).abs();
        ridge(self.octave(x, y, 0))
            .max(ridge(self.octave(1.3 * x, 1.3 * y, 2)))
            .powi(3)
    }

    fn octave(self, x: f32, y: f32, octave: u32) -> f32 {
        let (fx, fy) = (x.floor(), y.floor());
        let ease = |t: f32| t * t * (3.0 - 2.0 * t);
        let (tx, ty) = (ease(x - fx), ease(y - fy));
        let corner = |dx: i32, dy: i32| self.hash(fx as i32 + dx, fy as i32 + dy, octave);
        let top = corner(0, 0) + tx * (corner(1, 0) - corner(0, 0));
        let bottom = corner(0, 1) + tx * (corner(1, 1) - corner(0, 1));
        top + ty * (bottom - top)
    }

    fn hash(self, x: i32, y: i32, octave: u32) -> f32 {
        let mut h = self.seed ^ octave.wrapping_mul(0x9E37_79B9);
        h = (h ^ x as u32).wrapping_mul(0x85EB_CA6B);
        h = (h ^ (h >> 13) ^ y as u32).wrapping_mul(0xC2B2_AE35);
        h ^= h >> 16;
        h = h.wrapping_mul(0x27D4_EB2F);
        ((h ^ (h >> 15)) >> 8) as f32 / 16_777_216.0
    }
}

//! The green channel: each class has a pattern that is drawn at its location in the cell.

mod cytoplasm;
mod fibres;
mod nucleus;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::canvas::Canvas;
use super::cells::{Cell, PixelLocation};
use super::stains::Scene;

/// Draws the protein stain of the given classes, 0–27.
pub(super) fn protein(scene: &Scene, classes: &[u16], rng: &mut ChaCha8Rng) -> Canvas {
    let size = scene.field.size;
    let mut sum = Canvas::new(size);
    // Weak unspecific staining of the whole cell.
    sum.add(|i| {
        if scene.field.locations[i].cell.is_some() {
            0.025
        } else {
            0.0
        }
    });
    for &class in classes {
        let mut canvas = Canvas::new(size);
        pattern(class, scene, &mut canvas, rng);
        let strength = rng.random_range(0.8..1.0);
        sum.add(|i| strength * canvas.data[i]);
    }
    sum
}

fn pattern(class: u16, scene: &Scene, canvas: &mut Canvas, rng: &mut ChaCha8Rng) {
    match class {
        0 => nucleus::nucleoplasm(scene, canvas),
        1 => nucleus::membrane(scene, canvas),
        2 => nucleus::nucleoli(scene, canvas),
        3 => nucleus::fibrillar_center(scene, canvas, rng),
        4 => nucleus::speckles(scene, canvas, rng),
        5 => nucleus::bodies(scene, canvas, rng),
        6 => cytoplasm::reticulum(scene, canvas),
        7 => cytoplasm::golgi(scene, canvas, rng),
        8 => cytoplasm::dots(scene, canvas, &cytoplasm::PEROXISOMES, rng),
        9 => cytoplasm::dots(scene, canvas, &cytoplasm::ENDOSOMES, rng),
        10 => cytoplasm::dots(scene, canvas, &cytoplasm::LYSOSOMES, rng),
        11 => fibres::intermediate(scene, canvas, rng),
        12 => fibres::actin(scene, canvas, rng),
        13 => fibres::focal_adhesions(scene, canvas, rng),
        14 => fibres::microtubules(scene, canvas),
        15 => fibres::microtubule_ends(scene, canvas),
        16 => fibres::cytokinetic_bridge(scene, canvas),
        17 => fibres::mitotic_spindle(scene, canvas),
        18 => cytoplasm::organizing_center(scene, canvas, rng),
        19 => cytoplasm::centrosome(scene, canvas, rng),
        20 => cytoplasm::lipid_droplets(scene, canvas, rng),
        21 => cytoplasm::plasma_membrane(scene, canvas),
        22 => cytoplasm::junctions(scene, canvas),
        23 => fibres::mitochondria(scene, canvas, rng),
        24 => cytoplasm::aggresome(scene, canvas, rng),
        25 => cytoplasm::cytosol(scene, canvas),
        26 => cytoplasm::dots(scene, canvas, &cytoplasm::BODIES, rng),
        27 => fibres::rods_and_rings(scene, canvas, rng),
        _ => unreachable!("classes are validated before drawing"),
    }
}

/// Adds `brightness(location, cell)` to each pixel in a cell.
fn fill(scene: &Scene, canvas: &mut Canvas, brightness: impl Fn(&PixelLocation, &Cell) -> f32) {
    canvas.add(|i| {
        let location = &scene.field.locations[i];
        scene
            .cell(location)
            .map_or(0.0, |cell| cell.level * brightness(location, cell))
    });
}

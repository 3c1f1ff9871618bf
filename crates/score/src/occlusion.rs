//! Probabilities for images with hidden parts.

use std::time::Instant;

use super::{Engine, EngineError};
use rgby_imaging::hide_cell;

/// A grid of cells that are hidden one at a time.
#[derive(Debug, Clone, Copy)]
pub struct Occlusion {
    /// Cells per side.
    pub grid: usize,
    /// Images per batch.
    pub batch: usize,
    /// Whether all batches have the same size; the last one is padded with zeros.
    pub whole_batches: bool,
    /// When to give up.
    pub deadline: Instant,
}

impl Occlusion {
    /// Returns the probabilities of `image`, an input `[C, S, S]`, with each cell hidden:
    /// `[grid², classes]`, row by row of the grid. `None` once the deadline has passed.
    ///
    /// # Errors
    ///
    /// The engine fails.
    pub fn probabilities(
        &self,
        engine: &mut dyn Engine,
        image: &[f32],
    ) -> Result<Option<Vec<f32>>, EngineError> {
        let preprocess = engine.spec().preprocess.clone();
        let classes = engine.num_classes();
        let cells: Vec<usize> = (0..self.grid * self.grid).collect();
        let mut found = Vec::with_capacity(cells.len() * classes);
        let mut images = Vec::new();
        for cells in cells.chunks(self.batch.max(1)) {
            if Instant::now() >= self.deadline {
                return Ok(None);
            }
            images.clear();
            for cell in cells {
                let start = images.len();
                images.extend_from_slice(image);
                let place = [cell / self.grid, cell % self.grid];
                hide_cell(&mut images[start..], &preprocess, self.grid, place);
            }
            let size = if self.whole_batches {
                self.batch.max(1)
            } else {
                cells.len()
            };
            images.resize(size * image.len(), 0.0);
            let output = engine.run(&images, size)?;
            found.extend_from_slice(&output[..cells.len() * classes]);
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::InferenceOutput;
    use crate::model_metadata::{ModelSpec, Precision, Provenance};
    use rgby_common::labels::hpa_classes;
    use rgby_imaging::Preprocess;

    /// An engine whose one probability is the brightness of the top left pixel; records the size of
    /// each batch.
    struct TopLeftPixel(ModelSpec, Vec<usize>);

    impl Engine for TopLeftPixel {
        fn spec(&self) -> &ModelSpec {
            &self.0
        }

        fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError> {
            self.1.push(batch);
            let rows = images.chunks(self.0.preprocess.input_len());
            Ok(InferenceOutput {
                probabilities: rows.map(|row| f32::midpoint(row[0], 1.0)).collect(),
                embeddings: Vec::new(),
            })
        }
    }

    fn engine() -> TopLeftPixel {
        let spec = ModelSpec {
            arch: "corner".into(),
            classes: hpa_classes()[..1].to_vec(),
            thresholds: vec![0.5],
            preprocess: Preprocess::new(&["red"], 4),
            provenance: Provenance::default(),
            precision: Precision::Fp32,
            embeddings: None,
        };
        TopLeftPixel(spec, Vec::new())
    }

    #[test]
    fn finds_the_relevant_cell_in_batches_of_any_size() {
        let mut occlusion = Occlusion {
            grid: 2,
            batch: 3,
            whole_batches: false,
            deadline: Instant::now() + Duration::from_mins(1),
        };
        let mut engine = engine();
        let expected = Some(vec![0.0, 1.0, 1.0, 1.0]);
        for (whole_batches, sizes) in [(false, [3, 1]), (true, [3, 3])] {
            occlusion.whole_batches = whole_batches;
            let found = occlusion.probabilities(&mut engine, &[1.0; 16]).unwrap();
            assert_eq!(found, expected);
            assert_eq!(std::mem::take(&mut engine.1), sizes);
        }
        occlusion.deadline = Instant::now();
        let late = occlusion.probabilities(&mut engine, &[1.0; 16]).unwrap();
        assert_eq!((late, engine.1.len()), (None, 0));
    }
}

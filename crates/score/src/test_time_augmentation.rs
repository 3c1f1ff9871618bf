//! Test-time augmentation (TTA): one output from the eight rotations and flips of each image.

use std::fmt;

use super::{Buffer, Engine, EngineError, InferenceOutput};
use crate::model_metadata::ModelSpec;
use rgby_imaging::{DIHEDRAL, Preprocess, dihedral};

/// How the probabilities of augmented images are combined.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    serde::Serialize,
    serde::Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum TtaCombination {
    #[default]
    Mean,
    /// The maximum.
    Max,
}

impl fmt::Display for TtaCombination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mean => "mean",
            Self::Max => "max",
        })
    }
}

/// An engine that runs another one on the eight rotations and flips of each batch.
pub(super) struct TestTimeAugmentation {
    engine: Box<dyn Engine>,
    combine: TtaCombination,
    /// Buffer for an augmented batch.
    augmented: Vec<f32>,
}

impl TestTimeAugmentation {
    pub(super) fn new(engine: Box<dyn Engine>, combine: TtaCombination) -> Self {
        Self {
            engine,
            combine,
            augmented: Vec::new(),
        }
    }
}

impl Engine for TestTimeAugmentation {
    fn spec(&self) -> &ModelSpec {
        self.engine.spec()
    }

    fn inputs(&self) -> Vec<Preprocess> {
        self.engine.inputs()
    }

    fn buffer(&self, len: usize) -> Result<Buffer, EngineError> {
        self.engine.buffer(len)
    }

    /// Embeddings are always averaged.
    fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError> {
        let side = self.spec().preprocess.size as usize;
        let (mut mean, mut embeddings) = (Averager::default(), Averager::default());
        let mut largest: Vec<f32> = Vec::new();
        for k in 0..DIHEDRAL {
            self.augmented.clear();
            self.augmented.extend_from_slice(images);
            for plane in self.augmented.chunks_exact_mut(side * side) {
                dihedral(plane, side, k);
            }
            let output = self.engine.infer(&self.augmented, batch)?;
            embeddings.add(&output.embeddings);
            match self.combine {
                TtaCombination::Mean => mean.add(&output.probabilities),
                TtaCombination::Max if k == 0 => largest = output.probabilities,
                TtaCombination::Max => {
                    for (most, p) in largest.iter_mut().zip(output.probabilities) {
                        *most = most.max(p);
                    }
                }
            }
        }
        Ok(InferenceOutput {
            probabilities: match self.combine {
                TtaCombination::Mean => mean.get(),
                TtaCombination::Max => largest,
            },
            embeddings: embeddings.get(),
        })
    }
}

/// Element-wise mean of vectors, summed in float64, so that the mean of equal vectors is
/// bit-identical to them.
#[derive(Default)]
pub(super) struct Averager {
    sum: Vec<f64>,
    count: u32,
}

impl Averager {
    pub(super) fn add(&mut self, values: &[f32]) {
        self.sum.resize(values.len(), 0.0);
        for (sum, value) in self.sum.iter_mut().zip(values) {
            *sum += f64::from(*value);
        }
        self.count += 1;
    }

    pub(super) fn get(self) -> Vec<f32> {
        let mean = |sum: f64| (sum / f64::from(self.count)) as f32;
        self.sum.iter().map(|sum| mean(*sum)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{SIDE, spec};

    /// An engine that returns the four corner pixels of the first plane as probabilities and
    /// embeddings.
    struct CornerPixels(ModelSpec);

    const CORNERS: [usize; 4] = [0, SIDE - 1, SIDE * (SIDE - 1), SIDE * SIDE - 1];

    impl Engine for CornerPixels {
        fn spec(&self) -> &ModelSpec {
            &self.0
        }

        fn infer(&mut self, images: &[f32], batch: usize) -> Result<InferenceOutput, EngineError> {
            let rows = images.chunks(images.len() / batch);
            let corners: Vec<f32> = rows
                .flat_map(|row| CORNERS.map(|corner| row[corner]))
                .collect();
            Ok(InferenceOutput {
                probabilities: corners.clone(),
                embeddings: corners,
            })
        }
    }

    #[test]
    fn each_corner_occurs_twice_in_each_position() {
        let plane = SIDE * SIDE;
        let image = |seed: usize| (0..4 * plane).map(move |i| (i * 7 + seed) as f32 / 100.0);
        let images: Vec<f32> = image(1).chain(image(5)).collect();
        for combine in [TtaCombination::Mean, TtaCombination::Max] {
            let mut augmented = TestTimeAugmentation::new(Box::new(CornerPixels(spec())), combine);
            // Twice, because the buffer is reused.
            for _ in 0..2 {
                let output = augmented.infer(&images, 2).unwrap();
                for (row, seed) in [1, 5].into_iter().enumerate() {
                    // Each of the four goes to each place twice.
                    let corners = CORNERS.map(|at| (at * 7 + seed) as f32 / 100.0);
                    let mean = corners.iter().sum::<f32>() / 4.0;
                    let most = corners.into_iter().fold(0.0, f32::max);
                    let wanted = if combine == TtaCombination::Mean {
                        mean
                    } else {
                        most
                    };
                    for place in 0..4 {
                        let (p, e) = (
                            output.probabilities[row * 4 + place],
                            output.embeddings[row * 4 + place],
                        );
                        assert!((p - wanted).abs() < 1e-6, "{p} for {wanted}");
                        assert!((e - mean).abs() < 1e-6, "{e} for {mean}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_mean_of_equal_vectors_is_bit_identical() {
        let values = [0.1, 1.0 / 3.0, f32::MIN_POSITIVE, 1.0 - f32::EPSILON / 2.0];
        for count in [2, 3, 7, 8] {
            let mut mean = Averager::default();
            for _ in 0..count {
                mean.add(&values);
            }
            assert_eq!(mean.get(), values);
        }
    }
}

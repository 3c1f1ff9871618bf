//! Features of a frozen backbone, computed by ONNX Runtime.

use std::path::Path;
use std::time::Instant;

use burn::tensor::Device;
use burn_store::ModuleSnapshot;

use super::network::{capture, to_bytes};
use super::{ExportError, threads};
use crate::data::Batch;
use crate::model::{Classifier, ModelConfig};
use crate::score::{self, Buffer, OrtSession, Runtime, available_threads};
use crate::train::{Config, Extracted, Extractor, ExtractorPool};

/// Largest number of images in a batch on a GPU.
const GPU_BATCH: usize = 64;
/// Pixels of a batch on a GPU: [`GPU_BATCH`] images of 256×256.
const GPU_PIXELS: usize = GPU_BATCH * 256 * 256;
/// Images that a decoding thread prepares at a time for a GPU. Each thread holds two such pieces in
/// memory.
const GPU_PIECE: usize = 8;
/// Sessions on a GPU: one computes while the other copies.
const GPU_SESSIONS: usize = 2;

/// Computes a network's [`head_input`](Classifier::head_input) in an inference session.
pub struct OrtExtractor {
    session: OrtSession,
    runtime: Runtime,
    /// Channels and side of the images.
    images: (usize, usize),
    /// The input of a batch of fixed size; without it, each batch runs at its own size.
    input: Option<Buffer>,
}

impl OrtExtractor {
    /// Loads the part before the head of `classifier`, which must not be on an autodiff device.
    ///
    /// # Errors
    ///
    /// [`ExportError`] if it cannot be exported or loaded.
    pub fn new(
        classifier: &Classifier,
        config: &ModelConfig,
        runtime: Runtime,
    ) -> Result<Self, ExportError> {
        Self::load(&backbone(classifier, config)?, config, runtime)
    }

    /// Loads the ONNX file `bytes` of a backbone.
    fn load(bytes: &[u8], config: &ModelConfig, runtime: Runtime) -> Result<Self, ExportError> {
        let what = Path::new("the backbone");
        Ok(Self {
            session: OrtSession::load(runtime, bytes, what, threads())?,
            runtime,
            images: config.image_shape(),
            input: None,
        })
    }

    /// Makes all batches `batch` images long; missing images are zeros. An execution provider may
    /// choose its algorithms anew for each shape.
    ///
    /// # Errors
    ///
    /// There is not enough memory that the device can read.
    pub fn with_fixed_batch(mut self, batch: usize) -> Result<Self, String> {
        let (channels, side) = self.images;
        let input = self.session.buffer(batch * channels * side * side)?;
        self.input = Some(input);
        Ok(self)
    }

    /// Returns the features of the images of `batches`, and when the session ran.
    fn run(&mut self, batches: &[Batch]) -> Result<Extracted, String> {
        let (channels, side) = self.images;
        let image = channels * side * side;
        let count: usize = batches.iter().map(|batch| batch.indices.len()).sum();
        let joined: Vec<f32>;
        let images = match (&mut self.input, batches) {
            (Some(input), _) => {
                let input = input.values_mut();
                let (used, unused) = input
                    .split_at_mut_checked(count * image)
                    .ok_or_else(|| format!("{count} images exceed the batch of the session"))?;
                copy(batches, used);
                unused.fill(0.0);
                &*input
            }
            (None, [batch]) => &batch.images,
            (None, batches) => {
                joined = batches.iter().flat_map(|b| &b.images).copied().collect();
                &joined
            }
        };
        let padded = images.len() / image;
        let start = Instant::now();
        let (_, mut rows) = self.session.run(images, [padded, channels, side, side])?;
        let computing = start..Instant::now();
        rows.truncate(rows.len() / padded * count);
        Ok(Extracted { rows, computing })
    }
}

/// Copies the images of all batches, which together have the length of `out`.
fn copy(batches: &[Batch], out: &mut [f32]) {
    let mut rest = out;
    for batch in batches {
        let (place, after) = rest.split_at_mut(batch.images.len());
        place.copy_from_slice(&batch.images);
        rest = after;
    }
}

impl Extractor for OrtExtractor {
    fn extract(&mut self, batches: Vec<Batch>) -> Result<Extracted, String> {
        self.run(&batches)
    }

    fn name(&self) -> String {
        self.runtime.describe()
    }
}

/// Returns the part before the head of `classifier` as an ONNX file.
fn backbone(classifier: &Classifier, config: &ModelConfig) -> Result<Vec<u8>, ExportError> {
    // Exporting moves the parameters of a module, so it gets a copy.
    let mut copy = Classifier::new(config, 0, &Device::flex());
    copy.apply(classifier.collect(None, None, true), None, None, true);
    to_bytes(&capture(
        &copy,
        config.image_shape(),
        Classifier::head_input,
    )?)
}

/// Returns sessions for the part before the head of `classifier` on the device of `runtime`.
///
/// On the CPU one session uses all cores, with the batches of the training. On a GPU two sessions
/// share batches of a fixed size, and all cores decode.
///
/// # Errors
///
/// [`ExportError`] if the network cannot be exported or loaded.
pub(super) fn sessions(
    classifier: &Classifier,
    config: &Config,
    runtime: Runtime,
) -> Result<ExtractorPool, ExportError> {
    let bytes = backbone(classifier, &config.model)?;
    let load = || OrtExtractor::load(&bytes, &config.model, runtime);
    if runtime.device() == score::Device::Cpu {
        return Ok(ExtractorPool {
            extractors: vec![Box::new(load()?)],
            batch: config.train.batch_size,
            piece: config.train.batch_size,
            decode_threads: config.data.workers,
        });
    }
    let (batch, piece) = gpu_batch(config.model.image_shape().1);
    let session = |_| {
        let extractor = load()?.with_fixed_batch(batch);
        let extractor = extractor.map_err(ExportError::Config)?;
        Ok(Box::new(extractor) as Box<dyn Extractor>)
    };
    Ok(ExtractorPool {
        extractors: (0..GPU_SESSIONS)
            .map(session)
            .collect::<Result<_, ExportError>>()?,
        batch,
        piece,
        decode_threads: config.data.workers.max(available_threads()),
    })
}

/// Returns the batch size on a GPU for images of `side` pixels, and the images that a thread
/// prepares at a time.
fn gpu_batch(side: usize) -> (usize, usize) {
    let fits = (GPU_PIXELS / (side * side).max(1)).clamp(1, GPU_BATCH);
    // A power of two, so that the pieces divide it.
    let batch = 1 << fits.ilog2();
    (batch, batch.min(GPU_PIECE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Arch;
    use crate::score::{EngineChoice, RuntimeOptions};
    use burn::tensor::{Tensor, TensorData};

    #[test]
    fn gpu_batches_fit_large_images() {
        for (side, expected) in [
            (32, (64, 8)),
            (224, (64, 8)),
            (256, (64, 8)),
            (299, (32, 8)),
            (512, (16, 8)),
            (1024, (4, 4)),
            (2048, (1, 1)),
            (8192, (1, 1)),
        ] {
            assert_eq!(gpu_batch(side), expected, "{side}");
        }
    }

    /// Returns a batch of `count` images that starts with image `first`.
    fn batch(first: usize, count: usize, image: usize) -> Batch {
        let value = |at: usize| ((at * 7919) % 1009) as f32 / 500.0 - 1.0;
        Batch {
            images: (first * image..(first + count) * image)
                .map(value)
                .collect(),
            targets: vec![0.0; count],
            indices: (first..first + count).collect(),
        }
    }

    #[test]
    fn features_equal_those_of_burn_for_every_batch_size() {
        let config = ModelConfig::new(Arch::ResNet50, 64).resolved().unwrap();
        let (channels, side) = config.image_shape();
        let image = channels * side * side;
        let device = Device::flex();
        let classifier = Classifier::new(&config, 3, &device);
        let options = RuntimeOptions {
            engine: EngineChoice::Auto,
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::start(&options).unwrap();
        let load = || OrtExtractor::new(&classifier, &config, runtime).unwrap();
        let data = TensorData::new(batch(0, 5, image).images, [5, channels, side, side]);
        let expected = classifier.head_input(Tensor::from_data(data, &device));
        let expected: Vec<f32> = expected.into_data().iter().collect();
        let largest = expected
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let pieces = || vec![batch(0, 2, image), batch(2, 2, image), batch(4, 1, image)];
        for (mut extractor, batches) in [
            (load(), vec![batch(0, 5, image)]),
            (load(), pieces()),
            (load().with_fixed_batch(8).unwrap(), pieces()),
            (load().with_fixed_batch(5).unwrap(), pieces()),
        ] {
            let found = extractor.extract(batches).unwrap().rows;
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                let gap = (found - expected).abs();
                assert!(gap <= 1e-5 * largest, "{found} {expected}, up to {largest}");
            }
        }
        let mut small = load().with_fixed_batch(4).unwrap();
        let error = small.extract(pieces()).unwrap_err();
        assert!(error.contains("5 images exceed"), "{error}");
    }
}

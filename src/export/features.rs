//! Features of a frozen backbone, computed by ONNX Runtime.

use std::path::Path;

use burn::tensor::Device;
use burn_store::ModuleSnapshot;

use super::ExportError;
use super::network::{capture, open_session};
use crate::data::Batch;
use crate::model::{Classifier, ModelConfig};
use crate::score::{OrtSession, Runtime, RuntimeOptions};
use crate::train::{Config, Extractor};

/// Computes a network's [`head_input`](Classifier::head_input) in an inference session.
pub struct OrtExtractor {
    session: OrtSession,
    runtime: Runtime,
    /// Channels and side of the images.
    images: (usize, usize),
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
        // Exporting moves the parameters of a module, so it gets a copy.
        let mut copy = Classifier::new(config, 0, &Device::flex());
        copy.apply(classifier.collect(None, None, true), None, None, true);
        let images = config.image_shape();
        let model = capture(&copy, images, Classifier::head_input)?;
        let session = open_session(&model, Path::new("the backbone"), runtime)?;
        Ok(Self {
            session,
            runtime,
            images,
        })
    }
}

/// Returns an extractor on ONNX Runtime; none if its library is not found.
///
/// The embedded tract is not faster than Burn, so it is not used here. Suitable as
/// [`FeatureCache::extractor`](crate::train::FeatureCache::extractor) for training on the CPU.
///
/// # Errors
///
/// The network cannot be exported or loaded: the reason.
pub fn onnx_runtime_extractor(
    classifier: &Classifier,
    config: &Config,
) -> Result<Option<Box<dyn Extractor>>, String> {
    let runtime = Runtime::start(&RuntimeOptions::default()).map_err(|error| error.to_string())?;
    if runtime.is_tract() {
        return Ok(None);
    }
    let extractor = OrtExtractor::new(classifier, &config.model, runtime);
    Ok(Some(Box::new(
        extractor.map_err(|error| error.to_string())?,
    )))
}

impl Extractor for OrtExtractor {
    fn extract(&mut self, batch: Batch) -> Result<Vec<f32>, String> {
        let (channels, side) = self.images;
        let shape = [batch.indices.len(), channels, side, side];
        let (_, features) = self.session.run(&batch.images, shape)?;
        Ok(features)
    }

    fn name(&self) -> String {
        self.runtime.describe()
    }
}

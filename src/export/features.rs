//! A frozen backbone on ONNX Runtime, for training that computes its features once.

use std::path::Path;

use burn::tensor::Device;
use burn_store::ModuleSnapshot;

use super::{ExportError, capture, open_session};
use crate::data::Batch;
use crate::model::{Classifier, ModelConfig};
use crate::score::{OrtSession, Runtime};
use crate::train::Extractor;

/// A network's [`head_input`](Classifier::head_input) in a session of the serving engine.
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
        // Exporting moves a module's parameters: this one is made for it.
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

//! Implementations that compute the features of a frozen backbone.

use std::path::PathBuf;

use burn::tensor::Device;

use super::Config;
use super::step::image_tensor;
use crate::data::Batch;
use crate::model::Classifier;

/// Computes the input of a network's head. On the CPU, ONNX Runtime is faster than Burn.
pub trait Extractor {
    /// Returns the head inputs `[N, L]`, row by row, for the images `[N, C, S, S]` of a batch.
    ///
    /// # Errors
    ///
    /// Why they could not be computed.
    fn extract(&mut self, batch: Batch) -> Result<Vec<f32>, String>;

    /// Name of the implementation.
    fn name(&self) -> String;
}

/// Creates an [`Extractor`] for a network in inference mode; `None` to use Burn.
pub type MakeExtractor = dyn Fn(&Classifier, &Config) -> Result<Option<Box<dyn Extractor>>, String>;

/// Location of the cached features and the implementation that computes them.
pub struct FeatureCache<'a> {
    /// Folder; `None` for a folder in the run directory that is removed when no longer needed.
    pub folder: Option<PathBuf>,
    pub extractor: &'a MakeExtractor,
}

/// Computes features with the network itself, on the training device.
pub(super) struct BurnExtractor {
    pub network: Classifier,
    pub images: (usize, usize),
    pub device: Device,
}

impl Extractor for BurnExtractor {
    fn extract(&mut self, batch: Batch) -> Result<Vec<f32>, String> {
        let images = image_tensor(batch, self.images, &self.device);
        Ok(self
            .network
            .head_input(images)
            .into_data()
            .iter::<f32>()
            .collect())
    }

    fn name(&self) -> String {
        "Burn".into()
    }
}

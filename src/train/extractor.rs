//! Implementations that compute the features of a frozen backbone.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Instant;

use burn::tensor::Device;

use super::Config;
use super::step::image_tensor;
use crate::data::Batch;
use crate::model::Classifier;

/// Head inputs of a batch.
#[derive(Debug)]
pub struct Extracted {
    /// `[N, L]`, row by row.
    pub rows: Vec<f32>,
    /// Start and end of the computation itself, without copies before and after it.
    pub computing: Range<Instant>,
}

/// Computes the input of a network's head. ONNX Runtime is faster than Burn.
pub trait Extractor: Send {
    /// Returns the head inputs for the images `[N, C, S, S]` of consecutive batches. Together they
    /// have at most [`ExtractorPool::batch`] images.
    ///
    /// # Errors
    ///
    /// Why they could not be computed.
    fn extract(&mut self, batches: Vec<Batch>) -> Result<Extracted, String>;

    /// Name of the implementation.
    fn name(&self) -> String;
}

/// Extractors of the same network that compute in parallel, and how they are fed.
pub struct ExtractorPool {
    /// Each runs in a thread of its own; at least one.
    pub extractors: Vec<Box<dyn Extractor>>,
    /// Images per call of an extractor.
    pub batch: usize,
    /// Images that a decoding thread prepares at a time; divides `batch`.
    pub piece: usize,
    /// Decoding threads.
    pub decode_threads: usize,
}

/// The implementation that was selected for a network.
pub enum FeatureBackend {
    /// Inference sessions.
    Sessions(ExtractorPool),
    /// The network itself, on the training device.
    Burn {
        /// Why there are no sessions, if nobody asked for this implementation.
        reason: Option<String>,
    },
}

/// Selects the implementation for a network in inference mode.
pub type SelectFeatureBackend = dyn Fn(&Classifier, &Config) -> Result<FeatureBackend, String>;

/// Location of the cached features and the implementation that computes them.
pub struct FeatureCache {
    /// Folder; `None` for a folder in the run directory that is removed when no longer needed.
    pub folder: Option<PathBuf>,
    pub backend: Box<SelectFeatureBackend>,
}

/// Computes features with the network itself, on the training device.
pub(super) struct BurnExtractor {
    pub network: Classifier,
    pub images: (usize, usize),
    pub device: Device,
}

impl Extractor for BurnExtractor {
    fn extract(&mut self, batches: Vec<Batch>) -> Result<Extracted, String> {
        let start = Instant::now();
        let mut rows = Vec::new();
        for batch in batches {
            let images = image_tensor(batch, self.images, &self.device);
            rows.extend(self.network.head_input(images).into_data().iter::<f32>());
        }
        Ok(Extracted {
            rows,
            computing: start..Instant::now(),
        })
    }

    fn name(&self) -> String {
        "Burn".into()
    }
}

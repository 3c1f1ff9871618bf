//! Restores a network from an ONNX file that rgby exported.

use std::collections::HashMap;

use burn::tensor::{Device, TensorData};
use burn_store::bridge;

use super::weights::{WeightTransfer, apply};
use super::{Classifier, ModelConfig, WeightsError};
use crate::graph::{GraphProto, ModelProto, weight_transfer::Weight};
use crate::model_metadata::{METADATA_KEY, ModelSpec};

/// Key of the ONNX `metadata_props` entry that holds the [`ModelConfig`] as JSON.
pub const CONFIG_KEY: &str = "rgby.model";

/// Prefixes of the names of all weights.
const PARTS: [&str; 3] = ["input_norm.", "backbone.", "head."];

/// An exported network: backbone, head and metadata.
#[derive(Debug)]
pub struct Exported {
    pub config: ModelConfig,
    /// Classes, thresholds, preprocessing and provenance.
    pub spec: ModelSpec,
    graph: GraphProto,
}

impl Exported {
    /// Returns whether rgby exported the model.
    #[must_use]
    pub fn is(model: &ModelProto) -> bool {
        entry(model, METADATA_KEY).is_some()
    }

    /// Reads and validates the metadata of a model.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Metadata`] if an entry is missing or invalid; [`WeightsError::Reduced`] if the
    /// file holds rounded weights.
    pub fn new(mut model: ModelProto) -> Result<Self, WeightsError> {
        let config: ModelConfig = parse(&model, CONFIG_KEY)?;
        let mut spec: ModelSpec = parse(&model, METADATA_KEY)?;
        if !spec.precision.is_full() {
            return Err(WeightsError::Reduced(spec.precision));
        }
        // Embeddings are an output of the file, not of the network.
        spec.embeddings = None;
        let fits = config.arch.name() == spec.arch
            && config.classes == spec.classes
            && config.channels == spec.preprocess.channels
            && config.input_size == spec.preprocess.size;
        let valid = config.validate().and_then(|()| spec.validate());
        let valid = valid.and(fits.then_some(()).ok_or_else(|| {
            format!("`{CONFIG_KEY}` and `{METADATA_KEY}` describe different networks")
        }));
        valid.map_err(WeightsError::Metadata)?;
        Ok(Self {
            config,
            spec,
            graph: std::mem::take(model.graph.mut_or_insert_default()),
        })
    }

    /// Builds the network with the bit-identical weights of the file.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Fit`] names a weight that is missing or has another shape.
    pub fn load(&self) -> Result<Classifier, WeightsError> {
        let imported = self.config.arch.imported();
        let paths: HashMap<String, &str> = imported
            .into_iter()
            .flat_map(|network| network.weights)
            .map(|&(path, initializer)| (format!("backbone.{initializer}"), path))
            .collect();
        let mut tensors = Vec::new();
        for tensor in &self.graph.initializer {
            let name = tensor.name.as_str();
            let path = match paths.get(name) {
                Some(path) => format!("backbone.{path}"),
                None if PARTS.iter().any(|part| name.starts_with(part)) => name.into(),
                // A constant of the graph, not a weight.
                None => continue,
            };
            let (shape, values) = Weight::Same(tensor).read()?;
            tensors.push(bridge::from_data(
                TensorData::new(values, shape),
                path,
                None,
            ));
        }
        let fresh = Classifier::new(&self.config, 0, &Device::flex());
        apply(fresh, tensors, WeightTransfer::All)
    }
}

fn entry<'m>(model: &'m ModelProto, key: &str) -> Option<&'m str> {
    let mut entries = model.metadata_props.iter();
    let found = entries.find(|entry| entry.key == key);
    found.map(|entry| entry.value.as_str())
}

fn parse<T: serde::de::DeserializeOwned>(model: &ModelProto, key: &str) -> Result<T, WeightsError> {
    let text =
        entry(model, key).ok_or_else(|| WeightsError::Metadata(format!("no `{key}` metadata")))?;
    serde_json::from_str(text)
        .map_err(|error| WeightsError::Metadata(format!("`{key}` metadata: {error}")))
}

//! Weights from a pretrained three-channel ONNX file of any exporter.

use std::collections::HashSet;

use burn::tensor::{DType, Shape, TensorData};
use burn_store::bridge;
use burn_store::burn_pack::{Error as PackError, Tensor as PackTensor};

use super::weights::{WeightTransfer, apply, imported};
use super::{Arch, Classifier, WeightsError};
use crate::graph::matching::{StructureMismatch, first_difference, likeness};
use crate::graph::network::Network;
use crate::graph::patches::normalize;
use crate::graph::surgery::{Filter, stem_weight, widen_filters};
use crate::graph::weight_transfer::{OwnedWeight, TransferredWeights, Weight, transfer_weights};
use crate::graph::{GraphError, GraphProto, ModelProto, read_bytes};

/// How the tensors of a pretrained file map to the network.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PretrainedReport {
    pub arch: Arch,
    /// Number of tensors copied bit-identically.
    pub matched: usize,
    /// The tensor with new input channels, and its new shape.
    pub widened: (String, Vec<usize>),
    /// BatchNorm layers that the file had folded into a convolution.
    pub unfolded: usize,
    /// Convolutions whose bias was absorbed by the BatchNorm after them.
    pub absorbed: usize,
    /// BatchNorm layers that absorbed another ε or a factor.
    pub rescaled: usize,
    /// Tensors of the file's classifier, which the new network does not have.
    pub dropped: Vec<String>,
    /// Other parts of the file that are not used.
    pub left_out: Vec<String>,
    /// Number of values in all tensors of the backbone.
    pub backbone_parameters: usize,
}

/// A pretrained graph, normalised for matching.
#[derive(Debug)]
pub struct Pretrained {
    graph: GraphProto,
    dropped: Vec<String>,
    left_out: Vec<String>,
}

impl Pretrained {
    /// Normalises the graph of a model.
    ///
    /// # Errors
    ///
    /// [`GraphError`] names the patch and the node to which it could not be applied.
    pub fn new(mut model: ModelProto) -> Result<Self, GraphError> {
        let graph = model.graph.mut_or_insert_default();
        let mut names: Vec<String> = tensors(graph).map(str::to_owned).collect();
        let outputs = graph.output.iter().skip(1);
        let left_out = outputs
            .map(|output| format!("output `{}`", output.name))
            .collect();
        normalize(graph)?;
        let used: HashSet<&str> = tensors(graph).collect();
        names.retain(|name| !used.contains(name.as_str()));
        Ok(Self {
            graph: std::mem::take(graph),
            dropped: names,
            left_out,
        })
    }

    /// Returns the known network that has the structure of the file.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Unknown`] names the first difference from the most similar network.
    pub fn arch(&self) -> Result<Arch, WeightsError> {
        let network = Network::new(&self.graph)?;
        for &arch in Arch::IMPORTED {
            if Network::new(&skeleton(arch)?)?.signature() == network.signature() {
                return Ok(arch);
            }
        }
        Err(unknown(&network, None)?)
    }

    /// Loads the weights into the backbone of `classifier`, which must be an `arch`. The head keeps
    /// its weights.
    ///
    /// `channels` gives the stem filter of each input channel.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Unknown`] names the first node that differs from the network.
    pub fn load(
        &self,
        arch: Arch,
        channels: &[Filter],
        classifier: Classifier,
    ) -> Result<(Classifier, PretrainedReport), WeightsError> {
        let (tensors, report) = self.backbone(arch, channels)?;
        Ok((
            apply(classifier, tensors, WeightTransfer::Backbone)?,
            report,
        ))
    }

    /// Returns what [`load`](Self::load) would report for the file's own network and channels.
    ///
    /// Reads and validates each weight.
    ///
    /// # Errors
    ///
    /// As [`arch`](Self::arch) and [`load`](Self::load).
    pub fn trial(&self) -> Result<PretrainedReport, WeightsError> {
        let channels = [Filter::Red, Filter::Green, Filter::Blue];
        Ok(self.backbone(self.arch()?, &channels)?.1)
    }

    /// Returns the parameters of the backbone; their values are read lazily.
    fn backbone(
        &self,
        arch: Arch,
        channels: &[Filter],
    ) -> Result<(Vec<PackTensor>, PretrainedReport), WeightsError> {
        let imported = imported(arch)?;
        let skeleton = skeleton(arch)?;
        let network = Network::new(&self.graph)?;
        let adopted = match transfer_weights(&network, &Network::new(&skeleton)?) {
            Err(GraphError::Mismatch(mismatch)) => {
                return Err(unknown(&network, Some((arch, mismatch)))?);
            }
            other => other?,
        };
        let stem = stem_weight(&skeleton)?;
        let mut report = self.report(arch, &adopted, channels);
        let mut tensors = Vec::with_capacity(imported.weights.len());
        for &(path, initializer) in imported.weights {
            let weight = adopted.weights.get(initializer).ok_or_else(|| {
                WeightsError::Fit(format!("the file has no counterpart of `{initializer}`"))
            })?;
            // Validates the weight now and reads it again later, so that not all are in memory at once.
            let (mut shape, values) = weight.read()?;
            let mut widening = None;
            if initializer == stem {
                widening = Some((shape[2] * shape[3], channels.to_vec()));
                shape[1] = channels.len();
                report.widened = (initializer.to_owned(), shape.clone());
            }
            report.backbone_parameters += shape.iter().product::<usize>();
            drop(values);
            tensors.push(deferred(path, shape, weight.owned(), widening));
        }
        Ok((tensors, report))
    }

    fn report(
        &self,
        arch: Arch,
        adopted: &TransferredWeights,
        channels: &[Filter],
    ) -> PretrainedReport {
        let same = |weight: &&Weight<_>| matches!(weight, Weight::Same(_));
        let mut left_out = self.left_out.clone();
        for (filter, name) in [
            (Filter::Red, "red"),
            (Filter::Green, "green"),
            (Filter::Blue, "blue"),
        ] {
            if !channels.contains(&filter) && !channels.contains(&Filter::Mean) {
                left_out.push(format!("the stem filters of {name}"));
            }
        }
        PretrainedReport {
            arch,
            // The stem is widened, not copied.
            matched: adopted.weights.values().filter(same).count() - 1,
            widened: (String::new(), Vec::new()),
            unfolded: adopted.unfolded,
            absorbed: adopted.absorbed,
            rescaled: adopted.rescaled,
            dropped: self.dropped.clone(),
            left_out,
            backbone_parameters: 0,
        }
    }
}

/// Returns a parameter whose values are read lazily.
fn deferred(
    path: &str,
    shape: Vec<usize>,
    weight: OwnedWeight,
    widening: Option<(usize, Vec<Filter>)>,
) -> PackTensor {
    let name = format!("backbone.{path}");
    let dims = Shape::from(shape.clone());
    bridge::deferred(name, DType::F32, dims, None, move || {
        let invalid = |error: GraphError| PackError::ValidationError(error.to_string());
        let (_, mut values) = weight.read().map_err(invalid)?;
        if let Some((plane, channels)) = &widening {
            values = widen_filters(&values, *plane, channels);
        }
        Ok(TensorData::new(values, shape.clone()))
    })
}

/// Returns the names of all initializers with more than one value.
fn tensors(graph: &GraphProto) -> impl Iterator<Item = &str> {
    let weights = graph.initializer.iter();
    weights
        .filter(|tensor| tensor.dims.iter().any(|&dim| dim > 1))
        .map(|tensor| tensor.name.as_str())
}

fn skeleton(arch: Arch) -> Result<GraphProto, WeightsError> {
    let mut model = read_bytes(imported(arch)?.skeleton)?;
    let graph = model.graph.mut_or_insert_default();
    normalize(graph)?;
    Ok(std::mem::take(graph))
}

/// Returns the error for a graph that is not the network `expected`, or no known network.
fn unknown(
    network: &Network,
    expected: Option<(Arch, StructureMismatch)>,
) -> Result<WeightsError, WeightsError> {
    let mut nearest = (Arch::IMPORTED[0], -1.0);
    for &arch in Arch::IMPORTED {
        let skeleton = skeleton(arch)?;
        let likeness = likeness(network, &Network::new(&skeleton)?);
        if likeness > nearest.1 {
            nearest = (arch, likeness);
        }
    }
    let (expected, mismatch) = if let Some((arch, mismatch)) = expected {
        (Some(arch), mismatch)
    } else {
        let skeleton = skeleton(nearest.0)?;
        (None, first_difference(network, &Network::new(&skeleton)?))
    };
    Ok(WeightsError::Unknown {
        expected,
        mismatch,
        nearest: nearest.0,
        likeness: nearest.1,
    })
}

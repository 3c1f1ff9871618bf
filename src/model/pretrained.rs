//! Weights from a pretrained three-channel ONNX export, whichever exporter wrote it.

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

/// What a conversion did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ConvertReport {
    /// The network.
    pub arch: Arch,
    /// Tensors taken over bit for bit.
    pub matched: usize,
    /// The tensor with new input channels, and its new shape.
    pub widened: (String, Vec<usize>),
    /// BatchNorm layers that the file had folded into a convolution.
    pub unfolded: usize,
    /// Convolutions whose bias went into the BatchNorm after them.
    pub absorbed: usize,
    /// BatchNorm layers that take up another ε or a factor.
    pub rescaled: usize,
    /// Tensors of the file that the new network does not have: its classifier.
    pub dropped: Vec<String>,
    /// What else of the file was not used.
    pub left_out: Vec<String>,
    /// Values in all tensors of the backbone.
    pub backbone_parameters: usize,
}

/// A pretrained export, brought into the form in which it can be matched.
#[derive(Debug)]
pub struct Pretrained {
    graph: GraphProto,
    dropped: Vec<String>,
    left_out: Vec<String>,
}

impl Pretrained {
    /// Normalises an export.
    ///
    /// # Errors
    ///
    /// The patch and the node that stood in its way.
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

    /// The known network whose structure the file has.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Unknown`] says where it differs from the nearest one.
    pub fn arch(&self) -> Result<Arch, WeightsError> {
        let network = Network::new(&self.graph)?;
        for &arch in Arch::IMPORTED {
            if Network::new(&skeleton(arch)?)?.signature() == network.signature() {
                return Ok(arch);
            }
        }
        Err(unknown(&network, None)?)
    }

    /// Puts the weights into `classifier`'s backbone, which must be an `arch`; the head keeps the
    /// weights it has.
    ///
    /// `channels` says for each input channel where its filters in the stem come from.
    ///
    /// # Errors
    ///
    /// [`WeightsError::Unknown`] names the first node that differs from the network.
    pub fn load(
        &self,
        arch: Arch,
        channels: &[Filter],
        classifier: Classifier,
    ) -> Result<(Classifier, ConvertReport), WeightsError> {
        let (tensors, report) = self.backbone(arch, channels)?;
        Ok((
            apply(classifier, tensors, WeightTransfer::Backbone)?,
            report,
        ))
    }

    /// What [`load`](Self::load) would do as the network that the file holds, with the three
    /// channels that it has. Each weight is read, to see that it is sound.
    ///
    /// # Errors
    ///
    /// As [`arch`](Self::arch) and [`load`](Self::load).
    pub fn trial(&self) -> Result<ConvertReport, WeightsError> {
        let channels = [Filter::Red, Filter::Green, Filter::Blue];
        Ok(self.backbone(self.arch()?, &channels)?.1)
    }

    /// The backbone's parameters, which read their values when they are wanted.
    fn backbone(
        &self,
        arch: Arch,
        channels: &[Filter],
    ) -> Result<(Vec<PackTensor>, ConvertReport), WeightsError> {
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
                WeightsError::Fit(format!("nothing stands in the place of `{initializer}`"))
            })?;
            // Read twice, here to see that it is sound, so that they are not all in memory at once.
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
    ) -> ConvertReport {
        let same = |weight: &&Weight<_>| matches!(weight, Weight::Same(_));
        let mut left_out = self.left_out.clone();
        for (filter, name) in [
            (Filter::Red, "red"),
            (Filter::Green, "green"),
            (Filter::Blue, "blue"),
        ] {
            if !channels.contains(&filter) && !channels.contains(&Filter::Mean) {
                left_out.push(format!("the stem's filters of {name}"));
            }
        }
        ConvertReport {
            arch,
            // All but the stem.
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

/// A parameter whose values are read when they are wanted.
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

/// Names of the initializers that hold more than a number.
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

/// The error for a network that is not the wanted one, or none of those that are known.
fn unknown(
    network: &Network,
    wanted: Option<(Arch, StructureMismatch)>,
) -> Result<WeightsError, WeightsError> {
    let mut nearest = (Arch::IMPORTED[0], -1.0);
    for &arch in Arch::IMPORTED {
        let skeleton = skeleton(arch)?;
        let likeness = likeness(network, &Network::new(&skeleton)?);
        if likeness > nearest.1 {
            nearest = (arch, likeness);
        }
    }
    let (wanted, mismatch) = if let Some((arch, mismatch)) = wanted {
        (Some(arch), mismatch)
    } else {
        let skeleton = skeleton(nearest.0)?;
        (None, first_difference(network, &Network::new(&skeleton)?))
    };
    Ok(WeightsError::Unknown {
        wanted,
        mismatch,
        nearest: nearest.0,
        likeness: nearest.1,
    })
}

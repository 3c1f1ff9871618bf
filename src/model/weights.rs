//! Weights in and out of a [`Classifier`]: from a pretrained ONNX file, to and from a checkpoint.

use std::collections::HashSet;
use std::path::Path;

use burn::module::Module;
use burn::tensor::TensorData;
use burn_store::burn_pack::Tensor as PackTensor;
use burn_store::{ApplyResult, BurnpackStore, ModuleSnapshot, bridge};

use super::{Arch, Classifier};
use crate::graph::surgery::{Stem, drop_classifier, inline_identities, stem_weight, weight};
use crate::graph::{GraphError, ModelProto, matching};
use crate::graph::{read_bytes, surgery::widen_filters};

/// Why weights could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The pretrained file does not fit.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The network has no pretrained form.
    #[error("{0} has no pretrained weights to convert; train it from random ones")]
    NoSkeleton(&'static str),
    /// Weights are missing, left over or of another shape.
    #[error("the weights do not fit the network: {0}")]
    Fit(String),
    /// The file could not be read or written.
    #[error("{0}")]
    Store(String),
}

/// What a conversion did.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ConvertReport {
    /// Tensors taken over bit for bit.
    pub matched: usize,
    /// The widened tensor, with its new shape.
    pub widened: (String, Vec<usize>),
    /// Tensors of the file that the new network does not have: its classifier.
    pub dropped: Vec<String>,
    /// Values in all tensors of the backbone.
    pub backbone_parameters: usize,
}

/// Puts the weights of a pretrained three-channel export into `classifier`'s backbone.
///
/// Every tensor is found by the structure of the graph around it. The head keeps the weights it
/// has.
///
/// # Errors
///
/// [`WeightsError::Graph`] names the first node that differs from the network.
pub fn convert(
    mut source: ModelProto,
    arch: Arch,
    stem: Stem,
    classifier: Classifier,
) -> Result<(Classifier, ConvertReport), WeightsError> {
    let (skeleton, table) = arch
        .skeleton()
        .ok_or(WeightsError::NoSkeleton(arch.name()))?;
    let all: Vec<String> = source
        .graph
        .initializer
        .iter()
        .map(|tensor| tensor.name.clone())
        .collect();
    let source = source.graph.mut_or_insert_default();
    inline_identities(source)?;
    drop_classifier(source)?;
    let mut skeleton = read_bytes(skeleton)?;
    let skeleton = skeleton.graph.mut_or_insert_default();
    drop_classifier(skeleton)?;
    let names = matching::match_weights(source, skeleton)?;
    let stem_name = stem_weight(source)?;

    let mut tensors = Vec::with_capacity(table.len());
    let mut report = ConvertReport {
        matched: table.len() - 1,
        widened: (stem_name.clone(), Vec::new()),
        dropped: Vec::new(),
        backbone_parameters: 0,
    };
    let used: HashSet<&String> = names.values().collect();
    report.dropped = all
        .into_iter()
        .filter(|name| !used.contains(name))
        .collect();
    for (path, initializer) in table {
        let name = names.get(*initializer).ok_or_else(|| {
            WeightsError::Fit(format!("nothing stands in the place of `{initializer}`"))
        })?;
        let (mut shape, mut values) = weight(source, name)?;
        if *name == stem_name {
            let plane = shape[2] * shape[3];
            values = widen_filters(&values, plane, 4, stem);
            shape[1] = 4;
            report.widened.1.clone_from(&shape);
        }
        report.backbone_parameters += values.len();
        let data = TensorData::new(values, shape);
        tensors.push(bridge::from_data(data, format!("backbone.{path}"), None));
    }
    Ok((apply(classifier, tensors, Part::Backbone)?, report))
}

/// Which part of a network is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Backbone,
}

fn apply(
    mut classifier: Classifier,
    tensors: Vec<PackTensor>,
    part: Part,
) -> Result<Classifier, WeightsError> {
    let result = classifier.apply(tensors, None, None, true);
    check_applied(&result, part)?;
    Ok(classifier)
}

fn check_applied(result: &ApplyResult, part: Part) -> Result<(), WeightsError> {
    if let Some(error) = result.errors.first() {
        return Err(WeightsError::Fit(error.to_string()));
    }
    if let Some(unused) = result.unused.first() {
        return Err(WeightsError::Fit(format!("the network has no `{unused}`")));
    }
    let missing = result
        .missing
        .iter()
        .find(|(path, _)| part == Part::All || path.starts_with("backbone."));
    match missing {
        Some((path, _)) => Err(WeightsError::Fit(format!("`{path}` is missing"))),
        None => Ok(()),
    }
}

/// Writes all weights and statistics, with the identity of each parameter.
///
/// # Errors
///
/// The file cannot be written.
pub fn save_weights(classifier: &Classifier, path: &Path) -> Result<(), WeightsError> {
    let mut store = BurnpackStore::from_file(path).auto_extension(false);
    classifier
        .valid()
        .save_into(&mut store)
        .map_err(|error| WeightsError::Store(format!("{}: {error}", path.display())))
}

/// Reads what [`save_weights`] wrote; with `keep_head` false the head keeps the weights it has.
///
/// # Errors
///
/// The file is damaged or belongs to another network.
pub fn load_weights(
    mut classifier: Classifier,
    path: &Path,
    keep_head: bool,
) -> Result<Classifier, WeightsError> {
    let mut store = BurnpackStore::from_file(path)
        .auto_extension(false)
        .allow_partial(!keep_head);
    if !keep_head {
        store = store.with_regex("^backbone\\.");
    }
    let result = classifier
        .load_from(&mut store)
        .map_err(|error| WeightsError::Fit(format!("{}: {error}", path.display())))?;
    check_applied(&result, if keep_head { Part::All } else { Part::Backbone })?;
    Ok(classifier)
}

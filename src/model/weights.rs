//! Loads and saves the weights of a [`Classifier`] by parameter name.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Shape;
use burn_store::burn_pack::{Reader, Tensor as PackTensor};
use burn_store::{ApplyResult, BurnpackStore, ModuleSnapshot};

use super::head::HEAD;
use super::parameters::list_parameters;
use super::{Arch, Classifier, Imported};
use crate::graph::{GraphError, matching::StructureMismatch};
use crate::model_metadata::Precision;

/// Prefix of the names of the input normalization's parameters.
const INPUT_NORM: &str = "input_norm.";

/// Why weights could not be loaded or saved. Messages about a file follow its name.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The pretrained file holds an unknown network, or another one than requested.
    #[error(
        "is not {}: {mismatch}; the nearest known network is {} ({:.0}% of its operators)",
        expected.map_or("a network that rgby knows", Arch::name), nearest.name(), likeness * 100.0
    )]
    Unknown {
        /// The requested network, if any.
        expected: Option<Arch>,
        /// The first difference between the file and `expected`, or else `nearest`.
        mismatch: StructureMismatch,
        /// The known network that shares most operators with the file.
        nearest: Arch,
        /// Fraction of the operators that they share, 0–1.
        likeness: f64,
    },
    /// The network has no pretrained form.
    #[error("{0} has no pretrained weights to convert\nhint: train it from random weights")]
    NoSkeleton(&'static str),
    /// The metadata of an exported file is missing or invalid.
    #[error(
        "is not a complete export of this version of rgby: {0}\nhint: convert the file that it was \
         retrained from, or export its checkpoint again"
    )]
    Metadata(String),
    /// An exported file holds rounded weights with folded BatchNorm.
    #[error(
        "was exported with --precision {0}: its weights are rounded and its BatchNorm is folded, so \
         it is for scoring only\nhint: start from the checkpoint that it was exported from, or from an \
         export of it with --precision fp32"
    )]
    Reduced(Precision),
    /// Weights are missing, unused or of another shape.
    #[error("the weights do not fit the network: {0}")]
    Fit(String),
    /// The file could not be read or written.
    #[error("{0}")]
    Store(String),
}

/// Returns the build's description of the pretrained form of `arch`.
pub(super) fn imported(arch: Arch) -> Result<&'static Imported, WeightsError> {
    arch.imported().ok_or(WeightsError::NoSkeleton(arch.name()))
}

/// Which weights are loaded into a network; all others keep their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightTransfer {
    /// All weights; the source must have every weight of the network.
    All,
    /// All weights before the head. A network with an input normalization that the source lacks
    /// keeps its new one.
    Backbone,
    /// As [`Backbone`](Self::Backbone), and the projection and hidden layers of the head, in order,
    /// up to the first that is missing in the source or has another shape. The output layer is new.
    Prefix,
}

pub(super) fn apply(
    mut classifier: Classifier,
    tensors: Vec<PackTensor>,
    transfer: WeightTransfer,
) -> Result<Classifier, WeightsError> {
    let result = classifier.apply(tensors, None, None, true);
    check_applied(&result, transfer)?;
    Ok(classifier)
}

/// Loads the given tensors; other parameters keep their values.
pub(super) fn apply_some(
    mut classifier: Classifier,
    tensors: Vec<PackTensor>,
) -> Result<Classifier, WeightsError> {
    let result = classifier.apply(tensors, None, None, true);
    check_used(&result)?;
    Ok(classifier)
}

/// Fails if a tensor was not used or did not fit.
fn check_used(result: &ApplyResult) -> Result<(), WeightsError> {
    if let Some(error) = result.errors.first() {
        return Err(WeightsError::Fit(error.to_string()));
    }
    if let Some(unused) = result.unused.first() {
        let remedy = if unused.starts_with(INPUT_NORM) {
            "\nhint: set model.input_norm = true"
        } else {
            ""
        };
        return Err(WeightsError::Fit(format!(
            "the network has no `{unused}`{remedy}"
        )));
    }
    Ok(())
}

fn check_applied(result: &ApplyResult, transfer: WeightTransfer) -> Result<(), WeightsError> {
    check_used(result)?;
    let may_be_new = |path: &str| match transfer {
        WeightTransfer::All => false,
        WeightTransfer::Backbone | WeightTransfer::Prefix => {
            path.starts_with(HEAD) || path.starts_with(INPUT_NORM)
        }
    };
    let mut missing = result.missing.iter();
    let missing = missing.find(|(path, _)| !may_be_new(path));
    match missing {
        Some((path, _)) => Err(WeightsError::Fit(format!("`{path}` is missing"))),
        None => Ok(()),
    }
}

/// Writes all weights and statistics, with the id of each parameter.
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

/// Loads weights from a file of [`save_weights`] into `classifier`, as far as `transfer` says.
///
/// # Errors
///
/// The file is damaged or belongs to another network.
pub fn load_weights(
    classifier: Classifier,
    path: &Path,
    transfer: WeightTransfer,
) -> Result<Classifier, WeightsError> {
    let tensors = Reader::from_file_exact(path)
        .and_then(Reader::into_tensors)
        .map_err(|error| WeightsError::Fit(format!("{}: {error}", path.display())))?;
    apply_transfer(classifier, tensors, transfer)
}

/// Copies weights from one network to another of the same `arch`, as far as `transfer` says.
///
/// The result is bit-identical to [`load_weights`] on a file of `source`.
///
/// # Errors
///
/// The networks differ in what is to be copied.
pub fn transfer_weights(
    source: &Classifier,
    target: Classifier,
    transfer: WeightTransfer,
) -> Result<Classifier, WeightsError> {
    let tensors = source.valid().collect(None, None, false);
    apply_transfer(target, tensors, transfer)
}

fn apply_transfer(
    mut classifier: Classifier,
    mut tensors: Vec<PackTensor>,
    transfer: WeightTransfer,
) -> Result<Classifier, WeightsError> {
    let head_layers = match transfer {
        WeightTransfer::All => vec![HEAD.to_owned()],
        WeightTransfer::Backbone => Vec::new(),
        WeightTransfer::Prefix => shared_layers(&tensors, &classifier),
    };
    tensors.retain(|tensor| {
        let name = tensor.name.as_str();
        !name.starts_with(HEAD) || head_layers.iter().any(|layer| name.starts_with(layer))
    });
    let result = classifier.apply(tensors, None, None, false);
    check_applied(&result, transfer)?;
    Ok(classifier)
}

/// Returns the leading layers of the head that the tensors and the network share, each as the prefix
/// of its parameter names.
fn shared_layers(tensors: &[PackTensor], classifier: &Classifier) -> Vec<String> {
    let in_source = tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), &tensor.shape));
    let in_network = list_parameters(classifier);
    let in_network = in_network
        .iter()
        .map(|parameter| (parameter.path.as_str(), &parameter.shape));
    let in_source: BTreeMap<_, _> = in_source.collect();
    let in_network: BTreeMap<_, _> = in_network.collect();
    let layer = |parameters: &BTreeMap<&str, &Shape>, prefix: &str| -> Vec<(String, Shape)> {
        let of_layer = parameters
            .iter()
            .filter(|(name, _)| name.starts_with(prefix));
        of_layer
            .map(|(name, shape)| ((*name).to_owned(), (*shape).clone()))
            .collect()
    };
    let mut shared = Vec::new();
    let hidden = (0..).map(|index| format!("{HEAD}hidden.{index}."));
    for prefix in std::iter::once(format!("{HEAD}projection.")).chain(hidden) {
        let (source, network) = (layer(&in_source, &prefix), layer(&in_network, &prefix));
        // A head may have no projection; the prefix ends with the hidden layers.
        let absent = source.is_empty() && !shared.is_empty();
        if source != network || absent {
            break;
        }
        shared.push(prefix);
    }
    shared
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::model::ModelConfig;
    use crate::model::testing::{bits, small};

    /// Returns a network and a folder with its weights.
    fn saved(config: &ModelConfig) -> (tempfile::TempDir, Classifier) {
        let dir = tempfile::tempdir().unwrap();
        let classifier = Classifier::new(config, 1, &Device::flex());
        save_weights(&classifier, &dir.path().join("w")).unwrap();
        (dir, classifier)
    }

    /// Returns the names of the head's weights that equal those of the file.
    ///
    /// Also checks that [`transfer_weights`] copies the same bits as [`load_weights`].
    fn kept(
        from: &ModelConfig,
        into: &ModelConfig,
        transfer: WeightTransfer,
    ) -> Result<Vec<String>, String> {
        let (dir, source) = saved(from);
        let before = bits(&source);
        let fresh = || Classifier::new(into, 2, &Device::flex());
        let loaded = load_weights(fresh(), &dir.path().join("w"), transfer);
        let mut after = bits(&loaded.map_err(|error| error.to_string())?);
        after.retain(|name, bits| before.get(name) == Some(bits));
        // Other tests draw from the same random generator, so new weights are not compared.
        let mut copied = bits(&transfer_weights(&source, fresh(), transfer).unwrap());
        copied.retain(|name, bits| before.get(name) == Some(bits));
        assert!(copied == after);
        let backbone = |name: &&String| name.starts_with("backbone.");
        let all = before.keys().filter(backbone).count();
        assert_eq!(after.keys().filter(backbone).count(), all);
        // All biases start equal, so only weights are compared.
        let weight = |name: &String| !backbone(&name) && name.ends_with(".weight");
        Ok(after.into_keys().filter(weight).collect())
    }

    #[test]
    fn keeps_the_head_layers_that_the_transfer_allows_and_that_fit() {
        let mut old = small();
        old.projection = Some(6);
        old.hidden = vec![8, 4];
        let mut new = old.clone();
        assert_eq!(kept(&old, &new, WeightTransfer::All).unwrap().len(), 4);
        assert!(
            kept(&old, &new, WeightTransfer::Backbone)
                .unwrap()
                .is_empty()
        );
        let (projection, first, second) = (
            "head.projection.weight",
            "head.hidden.0.weight",
            "head.hidden.1.weight",
        );
        // The output layer is new even if it would fit.
        assert_eq!(
            kept(&old, &new, WeightTransfer::Prefix).unwrap(),
            [first, second, projection]
        );
        new.hidden = vec![8, 5, 4];
        assert_eq!(
            kept(&old, &new, WeightTransfer::Prefix).unwrap(),
            [first, projection]
        );
        assert!(
            kept(&old, &new, WeightTransfer::All)
                .unwrap_err()
                .contains("hidden.1")
        );
        new.hidden = vec![9];
        assert_eq!(
            kept(&old, &new, WeightTransfer::Prefix).unwrap(),
            [projection]
        );
        // After another projection no layer can be kept.
        new.hidden = vec![8];
        new.projection = None;
        assert!(kept(&old, &new, WeightTransfer::Prefix).unwrap().is_empty());
    }

    #[test]
    fn keeps_hidden_layers_without_a_projection() {
        let old = small();
        let mut new = small();
        new.hidden = vec![8, 8, 8];
        new.classes.pop();
        assert_eq!(
            kept(&old, &new, WeightTransfer::Prefix).unwrap(),
            ["head.hidden.0.weight"]
        );
    }

    #[test]
    fn allows_a_new_input_normalization_but_not_a_dropped_one() {
        let (plain, mut normalised) = (small(), small());
        normalised.input_norm = true;
        for transfer in [WeightTransfer::Backbone, WeightTransfer::Prefix] {
            kept(&plain, &normalised, transfer).unwrap();
            let error = kept(&normalised, &plain, transfer).unwrap_err();
            assert!(error.contains("model.input_norm = true"), "{error}");
        }
        let error = kept(&plain, &normalised, WeightTransfer::All).unwrap_err();
        assert!(error.contains("`input_norm.beta` is missing"), "{error}");
    }

    #[test]
    fn writes_identical_files_for_identical_networks() {
        let config = small();
        let (first, _) = saved(&config);
        let classifier = Classifier::new(&config, 3, &Device::flex());
        let again = load_weights(classifier, &first.path().join("w"), WeightTransfer::All).unwrap();
        save_weights(&again, &first.path().join("again")).unwrap();
        let bytes = |name: &str| std::fs::read(first.path().join(name)).unwrap();
        assert!(bytes("w") == bytes("again"));
    }
}

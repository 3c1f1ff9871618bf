//! Weights in and out of a [`Classifier`], by the names of its parameters.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Shape;
use burn_store::burn_pack::{Reader, Tensor as PackTensor};
use burn_store::{ApplyResult, BurnpackStore, ModuleSnapshot};

use super::parameters::list_parameters;
use super::{Arch, Classifier, Imported};
use crate::graph::{GraphError, matching::Mismatch};
use crate::model_metadata::Precision;

/// What the names of the head's parameters begin with.
pub(super) const HEAD: &str = "head.";
/// What those of the input's normalisation begin with.
const INPUT_NORM: &str = "input_norm.";

/// Why weights could not be loaded or saved.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The pretrained file does not fit.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The pretrained file is another network than was said, or one that is not known.
    #[error(
        "is not {}: {mismatch}; the nearest known network is {} ({:.0}% of its operators)",
        wanted.map_or("a network that rgby knows", Arch::name), nearest.name(), likeness * 100.0
    )]
    Unknown {
        /// The network that was asked for, if one was.
        wanted: Option<Arch>,
        /// The first place where the file differs from `wanted`, or else from `nearest`.
        mismatch: Mismatch,
        /// The known network that has most operators in common with the file.
        nearest: Arch,
        /// Share of the operators that they have in common, 0–1.
        likeness: f64,
    },
    /// The network has no pretrained form.
    #[error("{0} has no pretrained weights to convert; train it from random ones")]
    NoSkeleton(&'static str),
    /// An exported file does not say what it is.
    #[error(
        "was not exported whole by this version of rgby: {0}; convert the file that it was \
         retrained from, or export its checkpoint again"
    )]
    Metadata(String),
    /// An exported file holds rounded weights, BatchNorm folded into them.
    #[error(
        "was exported with --precision {0}: its weights are rounded and its BatchNorm is gone, so \
         that it is for scoring only; start from the checkpoint that it was made of, or from that \
         one's export with --precision fp32"
    )]
    Reduced(Precision),
    /// Weights are missing, left over or of another shape.
    #[error("the weights do not fit the network: {0}")]
    Fit(String),
    /// The file could not be read or written.
    #[error("{0}")]
    Store(String),
}

/// What the build read off the skeleton of `arch`.
pub(super) fn imported(arch: Arch) -> Result<&'static Imported, WeightsError> {
    arch.imported().ok_or(WeightsError::NoSkeleton(arch.name()))
}

/// What of a file's weights goes into a network; the rest keeps the weights it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightTransfer {
    /// Everything, and the file must hold all that the network has.
    All,
    /// All but the head. A network that normalises its input where the file does not gets a new
    /// normalisation.
    Backbone,
    /// As [`Backbone`](Self::Backbone), and the head's projection and hidden layers in their order,
    /// up to the first that the file has not or has in another shape. The output layer is new.
    Prefix,
}

pub(super) fn apply(
    mut classifier: Classifier,
    tensors: Vec<PackTensor>,
    keep: WeightTransfer,
) -> Result<Classifier, WeightsError> {
    let result = classifier.apply(tensors, None, None, true);
    check_applied(&result, keep)?;
    Ok(classifier)
}

/// Puts in the tensors that are given, whichever they are.
pub(super) fn apply_some(
    mut classifier: Classifier,
    tensors: Vec<PackTensor>,
) -> Result<Classifier, WeightsError> {
    let result = classifier.apply(tensors, None, None, true);
    check_used(&result)?;
    Ok(classifier)
}

/// Every tensor went somewhere.
fn check_used(result: &ApplyResult) -> Result<(), WeightsError> {
    if let Some(error) = result.errors.first() {
        return Err(WeightsError::Fit(error.to_string()));
    }
    if let Some(unused) = result.unused.first() {
        let mend = if unused.starts_with(INPUT_NORM) {
            "; set model.input_norm = true"
        } else {
            ""
        };
        return Err(WeightsError::Fit(format!(
            "the network has no `{unused}`{mend}"
        )));
    }
    Ok(())
}

fn check_applied(result: &ApplyResult, keep: WeightTransfer) -> Result<(), WeightsError> {
    check_used(result)?;
    let may_be_new = |path: &str| match keep {
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

/// Reads of what [`save_weights`] wrote as much as `keep` says.
///
/// # Errors
///
/// The file is damaged or belongs to another network.
pub fn load_weights(
    mut classifier: Classifier,
    path: &Path,
    keep: WeightTransfer,
) -> Result<Classifier, WeightsError> {
    let mut tensors = Reader::from_file_exact(path)
        .and_then(Reader::into_tensors)
        .map_err(|error| WeightsError::Fit(format!("{}: {error}", path.display())))?;
    let kept = match keep {
        WeightTransfer::All => vec![HEAD.to_owned()],
        WeightTransfer::Backbone => Vec::new(),
        WeightTransfer::Prefix => shared_layers(&tensors, &classifier),
    };
    tensors.retain(|tensor| {
        let name = tensor.name.as_str();
        !name.starts_with(HEAD) || kept.iter().any(|layer| name.starts_with(layer))
    });
    let result = classifier.apply(tensors, None, None, false);
    check_applied(&result, keep)?;
    Ok(classifier)
}

/// The head's layers, from the first on, that the file and the network share, each as the prefix
/// of its parameters' names.
fn shared_layers(tensors: &[PackTensor], classifier: &Classifier) -> Vec<String> {
    let theirs = tensors
        .iter()
        .map(|tensor| (tensor.name.as_str(), &tensor.shape));
    let ours = list_parameters(classifier);
    let ours = ours.iter().map(|ours| (ours.path.as_str(), &ours.shape));
    let (theirs, ours): (BTreeMap<_, _>, BTreeMap<_, _>) = (theirs.collect(), ours.collect());
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
        let (in_file, in_network) = (layer(&theirs, &prefix), layer(&ours, &prefix));
        // A head may have no projection; where the hidden layers end, the prefix does.
        let absent = in_file.is_empty() && !shared.is_empty();
        if in_file != in_network || absent {
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

    /// A folder with the weights of a network, and their bits.
    fn saved(config: &ModelConfig) -> (tempfile::TempDir, BTreeMap<String, Vec<u32>>) {
        let dir = tempfile::tempdir().unwrap();
        let classifier = Classifier::new(config, 1, &Device::flex());
        save_weights(&classifier, &dir.path().join("w")).unwrap();
        (dir, bits(&classifier))
    }

    /// Names of the loaded head's weights that are the file's.
    fn kept(
        from: &ModelConfig,
        into: &ModelConfig,
        keep: WeightTransfer,
    ) -> Result<Vec<String>, String> {
        let (dir, before) = saved(from);
        let fresh = Classifier::new(into, 2, &Device::flex());
        let loaded = load_weights(fresh, &dir.path().join("w"), keep);
        let mut after = bits(&loaded.map_err(|error| error.to_string())?);
        after.retain(|name, bits| before.get(name) == Some(bits));
        let backbone = |name: &&String| name.starts_with("backbone.");
        let all = before.keys().filter(backbone).count();
        assert_eq!(after.keys().filter(backbone).count(), all);
        // Biases start in the same places, so that weights tell.
        let weight = |name: &String| !backbone(&name) && name.ends_with(".weight");
        Ok(after.into_keys().filter(weight).collect())
    }

    #[test]
    fn as_much_of_a_head_is_kept_as_was_asked_for_and_fits() {
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
        // The output is new even where it would fit.
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
        // Behind another projection nothing means the same.
        new.hidden = vec![8];
        new.projection = None;
        assert!(kept(&old, &new, WeightTransfer::Prefix).unwrap().is_empty());
    }

    #[test]
    fn without_a_projection_the_hidden_layers_are_the_prefix() {
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
    fn the_inputs_normalisation_may_be_new_but_not_forgotten() {
        let (plain, mut normalised) = (small(), small());
        normalised.input_norm = true;
        for keep in [WeightTransfer::Backbone, WeightTransfer::Prefix] {
            kept(&plain, &normalised, keep).unwrap();
            let error = kept(&normalised, &plain, keep).unwrap_err();
            assert!(error.contains("model.input_norm = true"), "{error}");
        }
        let error = kept(&plain, &normalised, WeightTransfer::All).unwrap_err();
        assert!(error.contains("`input_norm.beta` is missing"), "{error}");
    }

    #[test]
    fn equal_networks_make_equal_files() {
        let config = small();
        let (first, _) = saved(&config);
        let classifier = Classifier::new(&config, 3, &Device::flex());
        let again = load_weights(classifier, &first.path().join("w"), WeightTransfer::All).unwrap();
        save_weights(&again, &first.path().join("again")).unwrap();
        let bytes = |name: &str| std::fs::read(first.path().join(name)).unwrap();
        assert!(bytes("w") == bytes("again"));
    }
}

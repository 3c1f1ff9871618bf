//! Weights in and out of a [`Classifier`], by the names of its parameters.

use std::path::Path;

use burn::module::Module;
use burn_store::burn_pack::Tensor as PackTensor;
use burn_store::{ApplyResult, BurnpackStore, ModuleSnapshot};

use super::{Arch, Classifier};
use crate::graph::{GraphError, matching::Mismatch};

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
    /// Weights are missing, left over or of another shape.
    #[error("the weights do not fit the network: {0}")]
    Fit(String),
    /// The file could not be read or written.
    #[error("{0}")]
    Store(String),
}

/// Which part of a network is meant; the rest keeps the weights it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    All,
    Backbone,
    /// The tensors that are given.
    Given,
}

pub(super) fn apply(
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
    let missing = result.missing.iter().find(|(path, _)| match part {
        Part::All => true,
        Part::Backbone => path.starts_with("backbone."),
        Part::Given => false,
    });
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

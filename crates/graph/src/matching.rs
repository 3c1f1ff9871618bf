//! Pairs the layers of a skeleton with those of another graph of the same structure.
//!
//! Names and node order differ between exporters, so neither is used. The signature of a layer
//! covers its operator, attributes, weight shapes and the signatures of its inputs. Equal signatures
//! at the outputs mean equal networks. Both are then traversed from the output to pair the layers.

use std::collections::{HashMap, HashSet};

use super::GraphError;
use super::network::{Layer, LayerInput, Network};

/// The first difference between a graph and the expected network.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected}; found {found}")]
pub struct StructureMismatch {
    pub expected: String,
    pub found: String,
}

/// Returns the pairs of corresponding layers: that of `source`, that of `skeleton`.
///
/// # Errors
///
/// [`StructureMismatch`] names the first layer of the skeleton that the source lacks.
pub(super) fn pair_layers<'n, 'a>(
    source: &'n Network<'a>,
    skeleton: &'n Network<'a>,
) -> Result<Vec<(&'n Layer<'a>, &'n Layer<'a>)>, GraphError> {
    if source.signature() != skeleton.signature() {
        return Err(first_difference(source, skeleton).into());
    }
    let mut pairs: HashMap<usize, usize> = HashMap::new();
    let mut stack = vec![(source.output, skeleton.output)];
    while let Some((source_layer, skeleton_layer)) = stack.pop() {
        match pairs.insert(skeleton_layer, source_layer) {
            None => {}
            Some(same) if same == source_layer => continue,
            Some(_) => {
                return Err(GraphError::Invalid(format!(
                    "{} matches two layers of the network",
                    source.layers[source_layer].describe()
                )));
            }
        }
        let source_inputs = sorted_inputs(source, source_layer);
        let skeleton_inputs = sorted_inputs(skeleton, skeleton_layer);
        for pair in source_inputs.into_iter().zip(skeleton_inputs) {
            if let (LayerInput::Layer(source_layer), LayerInput::Layer(skeleton_layer)) = pair {
                stack.push((source_layer, skeleton_layer));
            }
        }
    }
    let mut pairs: Vec<(usize, usize)> = pairs.into_iter().collect();
    pairs.sort_unstable();
    let layers = pairs.into_iter();
    Ok(layers
        .map(|(in_skeleton, in_source)| (&source.layers[in_source], &skeleton.layers[in_skeleton]))
        .collect())
}

/// Returns the inputs in an order that is equal for layers of equal signature.
fn sorted_inputs<'a>(network: &Network<'a>, index: usize) -> Vec<LayerInput<'a>> {
    let layer = &network.layers[index];
    let mut inputs = layer.inputs.clone();
    if layer.commutes() {
        inputs.sort_by_key(|input| match input {
            LayerInput::Layer(index) => Some(network.layers[*index].signature),
            LayerInput::Image | LayerInput::Stored(_) => None,
        });
    }
    inputs
}

/// Returns the share of operators that two networks have in common, 0–1.
///
/// Operators are compared by attributes and weight shapes, not by position.
#[must_use]
pub fn likeness(source: &Network, skeleton: &Network) -> f64 {
    let count = |network: &Network| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for layer in &network.layers {
            let shape = layer.filters.map(|filters| &filters.dims);
            *counts
                .entry(format!("{} {shape:?}", layer.operator))
                .or_default() += 1;
        }
        counts
    };
    let (source_counts, skeleton_counts) = (count(source), count(skeleton));
    let common: usize = skeleton_counts
        .iter()
        .map(|(operator, count)| *count.min(source_counts.get(operator).unwrap_or(&0)))
        .sum();
    let all = source.layers.len().max(skeleton.layers.len());
    common as f64 / all.max(1) as f64
}

/// Returns the first layer of each network that the other one lacks.
#[must_use]
pub fn first_difference(source: &Network, skeleton: &Network) -> StructureMismatch {
    let first = |network: &Network, shared: &HashSet<u64>| {
        let mut layers = network.layers.iter();
        layers
            .find(|layer| !shared.contains(&layer.signature))
            .map_or_else(|| "the end of the network".to_owned(), Layer::describe)
    };
    StructureMismatch {
        expected: first(skeleton, &source.signatures()),
        found: first(source, &skeleton.signatures()),
    }
}

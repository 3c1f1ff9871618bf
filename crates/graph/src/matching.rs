//! Finds each layer of a skeleton in another graph of the same structure.
//!
//! Names and node order differ between exporters, so neither is used. Every unit's signature
//! covers its operator, its attributes, the shapes of its weights and the signatures of all that
//! it reads. Equal signatures at the outputs mean equal networks; the two are then walked in step
//! from the output, input by input, to pair the units.

use std::collections::{HashMap, HashSet};

use super::GraphError;
use super::network::{Network, Unit, UnitInput};

/// The first place where a graph is not the expected network.
#[derive(Debug, thiserror::Error)]
#[error("expected {expected}; found {found}")]
pub struct Mismatch {
    /// What the skeleton has there.
    pub expected: String,
    /// What the file has there.
    pub found: String,
}

/// Units of `source` and of `skeleton` that stand in the same place.
///
/// # Errors
///
/// [`Mismatch`] names the first unit, in the skeleton's order, that the source lacks.
pub(super) fn pair_units<'n, 'a>(
    source: &'n Network<'a>,
    skeleton: &'n Network<'a>,
) -> Result<Vec<(&'n Unit<'a>, &'n Unit<'a>)>, GraphError> {
    if source.signature() != skeleton.signature() {
        return Err(first_difference(source, skeleton).into());
    }
    let mut pairs: HashMap<usize, usize> = HashMap::new();
    let mut stack = vec![(source.output, skeleton.output)];
    while let Some((theirs, ours)) = stack.pop() {
        match pairs.insert(ours, theirs) {
            None => {}
            Some(same) if same == theirs => continue,
            Some(_) => {
                return Err(GraphError::Invalid(format!(
                    "{} could stand in two places of the network",
                    source.units[theirs].describe()
                )));
            }
        }
        let (theirs, ours) = (sorted_inputs(source, theirs), sorted_inputs(skeleton, ours));
        for pair in theirs.into_iter().zip(ours) {
            if let (UnitInput::Unit(theirs), UnitInput::Unit(ours)) = pair {
                stack.push((theirs, ours));
            }
        }
    }
    let mut pairs: Vec<(usize, usize)> = pairs.into_iter().collect();
    pairs.sort_unstable();
    let units = pairs.into_iter();
    Ok(units
        .map(|(ours, theirs)| (&source.units[theirs], &skeleton.units[ours]))
        .collect())
}

/// Inputs in an order that two units of equal signature share.
fn sorted_inputs<'a>(network: &Network<'a>, index: usize) -> Vec<UnitInput<'a>> {
    let unit = &network.units[index];
    let mut inputs = unit.inputs.clone();
    if unit.commutes() {
        inputs.sort_by_key(|input| match input {
            UnitInput::Unit(index) => Some(network.units[*index].signature),
            UnitInput::Image | UnitInput::Stored(_) => None,
        });
    }
    inputs
}

/// Share of all operators of two networks, told by attributes and weight shapes but not by place,
/// that they have in common: 0–1.
#[must_use]
pub fn likeness(source: &Network, skeleton: &Network) -> f64 {
    let count = |network: &Network| {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for unit in &network.units {
            let shape = unit.filters.map(|filters| &filters.dims);
            *counts
                .entry(format!("{} {shape:?}", unit.operator))
                .or_default() += 1;
        }
        counts
    };
    let (theirs, ours) = (count(source), count(skeleton));
    let common: usize = ours
        .iter()
        .map(|(operator, count)| *count.min(theirs.get(operator).unwrap_or(&0)))
        .sum();
    let all = source.units.len().max(skeleton.units.len());
    common as f64 / all.max(1) as f64
}

/// The first units, in the order of each network, that the other one lacks.
#[must_use]
pub fn first_difference(source: &Network, skeleton: &Network) -> Mismatch {
    let first = |network: &Network, shared: &HashSet<u64>| {
        let mut units = network.units.iter();
        units
            .find(|unit| !shared.contains(&unit.signature))
            .map_or_else(|| "nothing more".to_owned(), Unit::describe)
    };
    Mismatch {
        expected: first(skeleton, &source.signatures()),
        found: first(source, &skeleton.signatures()),
    }
}

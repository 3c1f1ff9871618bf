//! Takes the weights of a skeleton from another graph of the same structure.
//!
//! Where both have the same layer in the same form, every tensor is taken over bit for bit. Where
//! the source has it in another form, its parameters are computed so that the network answers as
//! the source did. A BatchNorm that an exporter folded into a convolution is unfolded: γ = 1,
//! β = the bias, mean 0, variance 1 − ε, so that it does nothing but add the bias.

// Only what is exactly the same is taken over bit for bit.
#![allow(clippy::float_cmp)]

use std::borrow::Borrow;
use std::collections::HashMap;

use super::affine::{Affine, check_channels};
use super::matching::pair_units;
use super::network::{Network, Norm, Step, Unit};
use super::tensor::{numel, values};
use super::{GraphError, TensorProto};

/// The weights of a skeleton.
#[derive(Debug, Default)]
pub struct Adopted<'a> {
    /// By the name of the skeleton's initializer.
    pub weights: HashMap<String, Weight<&'a TensorProto>>,
    /// BatchNorm layers that the source had folded into a convolution.
    pub unfolded: usize,
    /// Convolutions whose bias went into the mean of the BatchNorm after them.
    pub absorbed: usize,
    /// BatchNorm layers whose scale or shift takes up another ε or a factor after them.
    pub rescaled: usize,
}

/// A weight tensor.
#[derive(Debug, Clone)]
pub enum Weight<T> {
    /// The source's own.
    Same(T),
    /// A tensor that the source has in another form: shape and values.
    Made(Vec<usize>, Vec<f32>),
}

/// A weight that outlives the graph that it was found in.
pub type OwnedWeight = Weight<TensorProto>;

impl<T: Borrow<TensorProto>> Weight<T> {
    /// Shape and values.
    ///
    /// # Errors
    ///
    /// The source's tensor is broken: see [`values`].
    pub fn read(&self) -> Result<(Vec<usize>, Vec<f32>), GraphError> {
        match self {
            Self::Same(tensor) => {
                let tensor = tensor.borrow();
                let dims = tensor.dims.iter().map(|&dim| dim as usize).collect();
                Ok((dims, values(tensor)?))
            }
            Self::Made(dims, values) => Ok((dims.clone(), values.clone())),
        }
    }

    /// The weight itself; stored data is shared with the file that it was read from.
    #[must_use]
    pub fn owned(&self) -> OwnedWeight {
        match self {
            Self::Same(tensor) => Weight::Same(tensor.borrow().clone()),
            Self::Made(dims, values) => Weight::Made(dims.clone(), values.clone()),
        }
    }
}

/// Finds every weight of `skeleton` in `source`.
///
/// # Errors
///
/// [`Mismatch`](super::matching::Mismatch) where the structures differ; a broken tensor; a layer
/// that does what the skeleton has no parameter for.
pub fn adopt<'a>(source: &Network<'a>, skeleton: &Network<'a>) -> Result<Adopted<'a>, GraphError> {
    let mut adopted = Adopted::default();
    for (theirs, ours) in pair_units(source, skeleton)? {
        if let (Some(filters), Some(slot)) = (theirs.filters, ours.filters) {
            adopted.keep(slot, filters);
        }
        let slots = Slots::of(ours)?;
        match slots.norm {
            Some(norm) => adopted.take_norm(theirs, &norm, slots.factor)?,
            None => adopted.take_plain(theirs, ours, &slots)?,
        }
    }
    Ok(adopted)
}

/// The parameters that a skeleton's unit has for what follows its convolution.
struct Slots<'a> {
    bias: Option<&'a TensorProto>,
    norm: Option<Norm<'a>>,
    /// A fixed factor at the end.
    factor: f64,
}

impl<'a> Slots<'a> {
    fn of(unit: &Unit<'a>) -> Result<Self, GraphError> {
        let (mut bias, mut norm, mut factor) = (None, None, 1.0);
        for step in &unit.steps {
            match *step {
                Step::Shift { by, .. } => bias = Some(by),
                Step::Norm(parameters) => norm = Some(parameters),
                Step::Scale { by, .. } => factor *= f64::from(single(by)?),
            }
        }
        Ok(Self { bias, norm, factor })
    }
}

fn single(tensor: &TensorProto) -> Result<f32, GraphError> {
    match values(tensor)?[..] {
        [value] => Ok(value),
        _ => Err(GraphError::Invalid(format!(
            "the skeleton scales channels by `{}`, which is not one number",
            tensor.name
        ))),
    }
}

impl<'a> Adopted<'a> {
    fn keep(&mut self, slot: &TensorProto, tensor: &'a TensorProto) {
        self.weights.insert(slot.name.clone(), Weight::Same(tensor));
    }

    fn make(&mut self, slot: &TensorProto, values: impl Iterator<Item = f64>) {
        let values: Vec<f32> = values.map(|value| value as f32).collect();
        let weight = Weight::Made(vec![values.len()], values);
        self.weights.insert(slot.name.clone(), weight);
    }

    /// The skeleton has a BatchNorm here, and perhaps a fixed factor after it.
    fn take_norm(&mut self, theirs: &Unit<'a>, ours: &Norm, factor: f64) -> Result<(), GraphError> {
        let Some((before, norm, after)) = split_at_norm(&theirs.steps) else {
            return self.unfold(theirs, ours, factor);
        };
        let [gamma, beta, mean, _] = ours.parameters;
        let channels = numel(gamma)?;
        let before = collapse(channels, before, theirs)?;
        let after = collapse(channels, after, theirs)?;
        for (slot, tensor) in ours.parameters.into_iter().zip(norm.parameters) {
            check_channels(tensor, channels)?;
            self.keep(slot, tensor);
        }
        if before.shift.iter().any(|&shift| shift != 0.0) {
            self.absorbed += 1;
            let old = values(norm.parameters[2])?;
            let moved = old.iter().zip(&before.shift);
            self.make(mean, moved.map(|(&mean, shift)| f64::from(mean) - shift));
        }
        if !is_factor(&after, factor) || ours.epsilon != norm.epsilon {
            self.rescaled += 1;
            let [old_gamma, old_beta, _, spread] = norm.parameters.map(values);
            let (old_gamma, old_beta, spread) = (old_gamma?, old_beta?, spread?);
            let width = |index: usize, epsilon: f64| (f64::from(spread[index]) + epsilon).sqrt();
            self.make(
                gamma,
                (0..channels).map(|i| {
                    let ratio = width(i, ours.epsilon) / width(i, norm.epsilon);
                    f64::from(old_gamma[i]) * after.scale[i] / factor * ratio
                }),
            );
            self.make(
                beta,
                (0..channels)
                    .map(|i| (f64::from(old_beta[i]) * after.scale[i] + after.shift[i]) / factor),
            );
        }
        Ok(())
    }

    /// The source has no BatchNorm here: one is made that does what its steps do.
    fn unfold(&mut self, theirs: &Unit, ours: &Norm, factor: f64) -> Result<(), GraphError> {
        let [gamma, beta, mean, variance] = ours.parameters;
        let channels = numel(gamma)?;
        let all = collapse(channels, &theirs.steps, theirs)?;
        self.unfolded += 1;
        self.make(gamma, all.scale.iter().map(|scale| scale / factor));
        self.make(beta, all.shift.iter().map(|shift| shift / factor));
        self.make(mean, std::iter::repeat_n(0.0, channels));
        self.make(variance, std::iter::repeat_n(1.0 - ours.epsilon, channels));
        Ok(())
    }

    /// The skeleton has a convolution without BatchNorm, perhaps with a bias and a fixed factor.
    fn take_plain(
        &mut self,
        theirs: &Unit<'a>,
        ours: &Unit,
        slots: &Slots,
    ) -> Result<(), GraphError> {
        let (Some(filters), Some(slot)) = (theirs.filters, ours.filters) else {
            return Ok(());
        };
        let channels = filters.dims.first().map_or(0, |&dim| dim as usize);
        let all = collapse(channels, &theirs.steps, theirs)?;
        if all.scale.iter().any(|&scale| scale != slots.factor) {
            let dims = filters.dims.iter().map(|&dim| dim as usize).collect();
            let scaled = Weight::Made(dims, all.scaled(filters, slots.factor)?);
            self.weights.insert(slot.name.clone(), scaled);
        }
        let rest = collapse(channels, theirs.steps.get(1..).unwrap_or(&[]), theirs)?;
        match (slots.bias, theirs.steps.first()) {
            (
                Some(bias),
                Some(Step::Shift {
                    by,
                    negative: false,
                }),
            ) if is_factor(&rest, slots.factor) && numel(by)? == channels => {
                self.keep(bias, by);
            }
            (Some(bias), _) => self.make(bias, all.shift.iter().map(|shift| shift / slots.factor)),
            (None, _) if all.shift.iter().any(|&shift| shift != 0.0) => {
                return Err(GraphError::Invalid(format!(
                    "{} adds a bias, for which the network has no place",
                    theirs.describe()
                )));
            }
            (None, _) => {}
        }
        Ok(())
    }
}

/// What a list of the unit's steps comes to.
fn collapse(channels: usize, steps: &[Step], unit: &Unit) -> Result<Affine, GraphError> {
    let mut all = Affine::identity(channels);
    for step in steps {
        match step {
            Step::Shift { by, negative } => {
                let sign = if *negative { -1.0 } else { 1.0 };
                all.apply(by, |shift| (1.0, sign * shift))?;
            }
            Step::Scale { by, inverse: false } => all.apply(by, |scale| (scale, 0.0))?,
            Step::Scale { by, inverse: true } => all.apply(by, |scale| (1.0 / scale, 0.0))?,
            Step::Norm(norm) => all.normalise(norm)?,
        }
    }
    if all
        .scale
        .iter()
        .chain(&all.shift)
        .all(|value| value.is_finite())
    {
        return Ok(all);
    }
    Err(GraphError::Invalid(format!(
        "{} divides by zero or overflows",
        unit.describe()
    )))
}

/// Whether every channel is multiplied by `factor` and nothing else.
fn is_factor(all: &Affine, factor: f64) -> bool {
    all.scale.iter().all(|&scale| scale == factor) && all.shift.iter().all(|&term| term == 0.0)
}

/// The one BatchNorm among `steps`, what comes before it, which may only shift, and what after it.
fn split_at_norm<'s, 'a>(
    steps: &'s [Step<'a>],
) -> Option<(&'s [Step<'a>], Norm<'a>, &'s [Step<'a>])> {
    let is_norm = |step: &Step| matches!(step, Step::Norm(_));
    let at = steps.iter().position(is_norm)?;
    let (before, after) = (&steps[..at], &steps[at + 1..]);
    let shifts = before.iter().all(|step| matches!(step, Step::Shift { .. }));
    match steps[at] {
        Step::Norm(norm) if shifts && !after.iter().any(is_norm) => Some((before, norm, after)),
        _ => None,
    }
}

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
        let channels = numel(ours.parameters[0])?;
        let [gamma, beta, mean, variance] = ours.parameters;
        let is_norm = |step: &Step| matches!(step, Step::Norm(_));
        let at = theirs.steps.iter().position(is_norm);
        let (before, norm, after) = match at.map(|at| {
            (
                &theirs.steps[..at],
                theirs.steps[at],
                &theirs.steps[at + 1..],
            )
        }) {
            Some((before, Step::Norm(norm), after))
                if before.iter().all(|step| matches!(step, Step::Shift { .. }))
                    && !after.iter().any(is_norm) =>
            {
                (before, norm, after)
            }
            _ => {
                let all = Channels::collapse(channels, &theirs.steps, theirs)?;
                self.unfolded += 1;
                self.make(gamma, all.scale.iter().map(|scale| scale / factor));
                self.make(beta, all.shift.iter().map(|shift| shift / factor));
                self.make(mean, (0..channels).map(|_| 0.0));
                self.make(variance, (0..channels).map(|_| 1.0 - ours.epsilon));
                return Ok(());
            }
        };
        let (before, after) = (
            Channels::collapse(channels, before, theirs)?,
            Channels::collapse(channels, after, theirs)?,
        );
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
        if !after.is_factor(factor) || ours.epsilon != norm.epsilon {
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
        let all = Channels::collapse(channels, &theirs.steps, theirs)?;
        if all.scale.iter().any(|&scale| scale != slots.factor) {
            let mut old = values(filters)?;
            let count = (old.len() / channels.max(1)).max(1);
            for (filter, scale) in old.chunks_mut(count).zip(&all.scale) {
                for value in filter {
                    *value = (f64::from(*value) * scale / slots.factor) as f32;
                }
            }
            let dims = filters.dims.iter().map(|&dim| dim as usize).collect();
            self.weights
                .insert(slot.name.clone(), Weight::Made(dims, old));
        }
        let rest = Channels::collapse(channels, theirs.steps.get(1..).unwrap_or(&[]), theirs)?;
        match (slots.bias, theirs.steps.first()) {
            (
                Some(bias),
                Some(Step::Shift {
                    by,
                    negative: false,
                }),
            ) if rest.is_factor(slots.factor) && numel(by)? == channels => {
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

/// A factor and a term for each channel: what a list of steps comes to.
struct Channels {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Channels {
    fn collapse(channels: usize, steps: &[Step], unit: &Unit) -> Result<Self, GraphError> {
        let mut all = Self {
            scale: vec![1.0; channels],
            shift: vec![0.0; channels],
        };
        for step in steps {
            match *step {
                Step::Shift { by, negative } => {
                    let sign = if negative { -1.0 } else { 1.0 };
                    all.apply(|shift| (1.0, sign * shift), &per_channel(by, channels)?);
                }
                Step::Scale { by, inverse: false } => {
                    all.apply(|scale| (scale, 0.0), &per_channel(by, channels)?);
                }
                Step::Scale { by, inverse: true } => {
                    all.apply(|scale| (1.0 / scale, 0.0), &per_channel(by, channels)?);
                }
                Step::Norm(norm) => all.normalise(&norm)?,
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
    fn is_factor(&self, factor: f64) -> bool {
        self.scale.iter().all(|&scale| scale == factor)
            && self.shift.iter().all(|&term| term == 0.0)
    }

    fn apply(&mut self, step: impl Fn(f64) -> (f64, f64), values: &[f64]) {
        let channels = self.scale.iter_mut().zip(&mut self.shift).zip(values);
        for ((scale, shift), &value) in channels {
            let (factor, term) = step(value);
            *scale *= factor;
            *shift = *shift * factor + term;
        }
    }

    fn normalise(&mut self, norm: &Norm) -> Result<(), GraphError> {
        let count = self.scale.len();
        let [gamma, beta, mean, variance] = norm.parameters.map(|p| per_channel(p, count));
        let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
        for channel in 0..count {
            let factor = gamma[channel] / (variance[channel] + norm.epsilon).sqrt();
            self.scale[channel] *= factor;
            self.shift[channel] = (self.shift[channel] - mean[channel]) * factor + beta[channel];
        }
        Ok(())
    }
}

/// One value a channel, from as many or from a single one.
fn per_channel(tensor: &TensorProto, channels: usize) -> Result<Vec<f64>, GraphError> {
    let stored = values(tensor)?;
    if stored.len() != 1 {
        check_channels(tensor, channels)?;
    }
    let stored = stored.into_iter().map(f64::from);
    Ok(stored.cycle().take(channels).collect())
}

fn check_channels(tensor: &TensorProto, channels: usize) -> Result<(), GraphError> {
    if numel(tensor)? == channels {
        return Ok(());
    }
    Err(GraphError::Tensor {
        name: tensor.name.clone(),
        reason: format!("shape {:?} does not fit {channels} channels", tensor.dims),
    })
}

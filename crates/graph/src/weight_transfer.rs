//! Transfers weights to a skeleton from another graph of the same structure.
//!
//! Where both graphs write a layer in the same form, its tensors are copied bit-identically.
//! Otherwise the parameters are computed so that the outputs stay the same. A BatchNorm that an
//! exporter folded into a convolution is unfolded: γ = 1, β = the bias, mean 0, variance 1 − ε, so
//! that it only adds the bias.

// Exact equality decides whether a tensor is copied.
#![allow(clippy::float_cmp)]

use std::borrow::Borrow;
use std::collections::HashMap;

use super::affine::{Affine, check_channels};
use super::matching::pair_layers;
use super::network::{BatchNormParameters, ChannelOp, Layer, Network};
use super::tensor::{numel, values};
use super::{GraphError, TensorProto};

/// Weights for a skeleton and statistics of the transfer.
#[derive(Debug, Default)]
pub struct TransferredWeights<'a> {
    /// Keyed by the name of the skeleton's initializer.
    pub weights: HashMap<String, Weight<&'a TensorProto>>,
    /// BatchNorm layers that the source had folded into a convolution.
    pub unfolded: usize,
    /// Convolutions whose bias was moved into the mean of the following BatchNorm.
    pub absorbed: usize,
    /// BatchNorm layers rescaled for another ε or a constant factor after them.
    pub rescaled: usize,
}

/// A weight tensor.
#[derive(Debug, Clone)]
pub enum Weight<T> {
    /// A tensor of the source.
    Same(T),
    /// Computed from tensors of the source: shape and values.
    Computed(Vec<usize>, Vec<f32>),
}

/// A weight independent of the lifetime of its graph.
pub type OwnedWeight = Weight<TensorProto>;

impl<T: Borrow<TensorProto>> Weight<T> {
    /// Returns shape and values.
    ///
    /// # Errors
    ///
    /// As [`values`].
    pub fn read(&self) -> Result<(Vec<usize>, Vec<f32>), GraphError> {
        match self {
            Self::Same(tensor) => {
                let tensor = tensor.borrow();
                let dims = tensor.dims.iter().map(|&dim| dim as usize).collect();
                Ok((dims, values(tensor)?))
            }
            Self::Computed(dims, values) => Ok((dims.clone(), values.clone())),
        }
    }

    /// Returns an owned weight; `raw_data` is shared with the buffer of the file.
    #[must_use]
    pub fn owned(&self) -> OwnedWeight {
        match self {
            Self::Same(tensor) => Weight::Same(tensor.borrow().clone()),
            Self::Computed(dims, values) => Weight::Computed(dims.clone(), values.clone()),
        }
    }
}

/// Returns every weight of `skeleton`, from the corresponding layers of `source`.
///
/// # Errors
///
/// [`StructureMismatch`](super::matching::StructureMismatch) where the structures differ; an invalid
/// tensor; a layer of the source that the skeleton has no parameter for.
pub fn transfer_weights<'a>(
    source: &Network<'a>,
    skeleton: &Network<'a>,
) -> Result<TransferredWeights<'a>, GraphError> {
    let mut transferred = TransferredWeights::default();
    for (source_layer, skeleton_layer) in pair_layers(source, skeleton)? {
        if let (Some(filters), Some(target)) = (source_layer.filters, skeleton_layer.filters) {
            transferred.copy(target, filters);
        }
        let targets = TargetParameters::of(skeleton_layer)?;
        match targets.norm {
            Some(norm) => transferred.transfer_norm(source_layer, &norm, targets.factor)?,
            None => transferred.transfer_filters(source_layer, skeleton_layer, &targets)?,
        }
    }
    Ok(transferred)
}

/// Parameters of a skeleton's layer after its filters.
struct TargetParameters<'a> {
    bias: Option<&'a TensorProto>,
    norm: Option<BatchNormParameters<'a>>,
    /// Product of the constant factors.
    factor: f64,
}

impl<'a> TargetParameters<'a> {
    fn of(layer: &Layer<'a>) -> Result<Self, GraphError> {
        let (mut bias, mut norm, mut factor) = (None, None, 1.0);
        for operation in &layer.channel_ops {
            match *operation {
                ChannelOp::Shift { by, .. } => bias = Some(by),
                ChannelOp::BatchNorm(parameters) => norm = Some(parameters),
                ChannelOp::Scale { by, .. } => factor *= f64::from(single(by)?),
            }
        }
        Ok(Self { bias, norm, factor })
    }
}

fn single(tensor: &TensorProto) -> Result<f32, GraphError> {
    match values(tensor)?[..] {
        [value] => Ok(value),
        _ => Err(GraphError::Invalid(format!(
            "the skeleton scales channels by `{}`, which is not a scalar",
            tensor.name
        ))),
    }
}

impl<'a> TransferredWeights<'a> {
    fn copy(&mut self, target: &TensorProto, tensor: &'a TensorProto) {
        self.weights
            .insert(target.name.clone(), Weight::Same(tensor));
    }

    fn compute(&mut self, target: &TensorProto, values: impl Iterator<Item = f64>) {
        let values: Vec<f32> = values.map(|value| value as f32).collect();
        let weight = Weight::Computed(vec![values.len()], values);
        self.weights.insert(target.name.clone(), weight);
    }

    /// Transfers to a skeleton's BatchNorm that is followed by a constant factor.
    fn transfer_norm(
        &mut self,
        source: &Layer<'a>,
        target: &BatchNormParameters,
        factor: f64,
    ) -> Result<(), GraphError> {
        let Some((before, norm, after)) = split_at_norm(&source.channel_ops) else {
            return self.unfold(source, target, factor);
        };
        let [gamma, beta, mean, _] = target.parameters;
        let channels = numel(gamma)?;
        let before = compose(channels, before, source)?;
        let after = compose(channels, after, source)?;
        for (target, tensor) in target.parameters.into_iter().zip(norm.parameters) {
            check_channels(tensor, channels)?;
            self.copy(target, tensor);
        }
        if before.shift.iter().any(|&shift| shift != 0.0) {
            self.absorbed += 1;
            let old = values(norm.parameters[2])?;
            let moved = old.iter().zip(&before.shift);
            self.compute(mean, moved.map(|(&mean, shift)| f64::from(mean) - shift));
        }
        if !is_factor(&after, factor) || target.epsilon != norm.epsilon {
            self.rescaled += 1;
            let [old_gamma, old_beta, _, variance] = norm.parameters.map(values);
            let (old_gamma, old_beta, variance) = (old_gamma?, old_beta?, variance?);
            let deviation =
                |index: usize, epsilon: f64| (f64::from(variance[index]) + epsilon).sqrt();
            self.compute(
                gamma,
                (0..channels).map(|i| {
                    let ratio = deviation(i, target.epsilon) / deviation(i, norm.epsilon);
                    f64::from(old_gamma[i]) * after.scale[i] / factor * ratio
                }),
            );
            self.compute(
                beta,
                (0..channels)
                    .map(|i| (f64::from(old_beta[i]) * after.scale[i] + after.shift[i]) / factor),
            );
        }
        Ok(())
    }

    /// Computes a BatchNorm that is equivalent to the channel operations of the source.
    fn unfold(
        &mut self,
        source: &Layer,
        target: &BatchNormParameters,
        factor: f64,
    ) -> Result<(), GraphError> {
        let [gamma, beta, mean, variance] = target.parameters;
        let channels = numel(gamma)?;
        let all = compose(channels, &source.channel_ops, source)?;
        self.unfolded += 1;
        self.compute(gamma, all.scale.iter().map(|scale| scale / factor));
        self.compute(beta, all.shift.iter().map(|shift| shift / factor));
        self.compute(mean, std::iter::repeat_n(0.0, channels));
        self.compute(
            variance,
            std::iter::repeat_n(1.0 - target.epsilon, channels),
        );
        Ok(())
    }

    /// Transfers to a skeleton's convolution without BatchNorm.
    fn transfer_filters(
        &mut self,
        source: &Layer<'a>,
        skeleton: &Layer,
        targets: &TargetParameters,
    ) -> Result<(), GraphError> {
        let (Some(filters), Some(target)) = (source.filters, skeleton.filters) else {
            return Ok(());
        };
        let channels = filters.dims.first().map_or(0, |&dim| dim as usize);
        let all = compose(channels, &source.channel_ops, source)?;
        if all.scale.iter().any(|&scale| scale != targets.factor) {
            let dims = filters.dims.iter().map(|&dim| dim as usize).collect();
            let scaled = Weight::Computed(dims, all.scaled(filters, targets.factor)?);
            self.weights.insert(target.name.clone(), scaled);
        }
        let operations = source.channel_ops.get(1..).unwrap_or(&[]);
        let rest = compose(channels, operations, source)?;
        match (targets.bias, source.channel_ops.first()) {
            (
                Some(bias),
                Some(ChannelOp::Shift {
                    by,
                    negative: false,
                }),
            ) if is_factor(&rest, targets.factor) && numel(by)? == channels => {
                self.copy(bias, by);
            }
            (Some(bias), _) => {
                self.compute(bias, all.shift.iter().map(|shift| shift / targets.factor));
            }
            (None, _) if all.shift.iter().any(|&shift| shift != 0.0) => {
                return Err(GraphError::Invalid(format!(
                    "{} adds a bias, but the network has no parameter for it",
                    source.describe()
                )));
            }
            (None, _) => {}
        }
        Ok(())
    }
}

/// Composes some of the layer's channel operations.
fn compose(channels: usize, operations: &[ChannelOp], layer: &Layer) -> Result<Affine, GraphError> {
    let mut all = Affine::identity(channels);
    for operation in operations {
        match operation {
            ChannelOp::Shift { by, negative } => {
                let sign = if *negative { -1.0 } else { 1.0 };
                all.apply(by, |shift| (1.0, sign * shift))?;
            }
            ChannelOp::Scale { by, inverse: false } => all.apply(by, |scale| (scale, 0.0))?,
            ChannelOp::Scale { by, inverse: true } => all.apply(by, |scale| (1.0 / scale, 0.0))?,
            ChannelOp::BatchNorm(norm) => all.batch_norm(norm)?,
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
        layer.describe()
    )))
}

/// Returns whether `all` multiplies every channel by `factor` and adds nothing.
fn is_factor(all: &Affine, factor: f64) -> bool {
    all.scale.iter().all(|&scale| scale == factor) && all.shift.iter().all(|&term| term == 0.0)
}

/// Splits operations at their only BatchNorm; those before it may only shift.
fn split_at_norm<'s, 'a>(
    operations: &'s [ChannelOp<'a>],
) -> Option<(
    &'s [ChannelOp<'a>],
    BatchNormParameters<'a>,
    &'s [ChannelOp<'a>],
)> {
    let is_norm = |operation: &ChannelOp| matches!(operation, ChannelOp::BatchNorm(_));
    let at = operations.iter().position(is_norm)?;
    let (before, after) = (&operations[..at], &operations[at + 1..]);
    let shifts = before
        .iter()
        .all(|operation| matches!(operation, ChannelOp::Shift { .. }));
    match operations[at] {
        ChannelOp::BatchNorm(norm) if shifts && !after.iter().any(is_norm) => {
            Some((before, norm, after))
        }
        _ => None,
    }
}

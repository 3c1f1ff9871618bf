//! Per-channel affine functions: the composition of BatchNorm, scaling and shifting.

use super::network::BatchNormParameters;
use super::tensor::{numel, values};
use super::{GraphError, TensorProto};

/// `x · scale + shift` for each channel, in float64.
pub(super) struct Affine {
    pub scale: Vec<f64>,
    pub shift: Vec<f64>,
}

impl Affine {
    /// Returns the identity on `channels` channels.
    pub fn identity(channels: usize) -> Self {
        Self {
            scale: vec![1.0; channels],
            shift: vec![0.0; channels],
        }
    }

    /// Appends `x · factor + term`, where `terms` computes both from a value of `by`.
    ///
    /// # Errors
    ///
    /// `by` has neither one value nor one per channel, or is invalid.
    pub fn apply(
        &mut self,
        by: &TensorProto,
        terms: impl Fn(f64) -> (f64, f64),
    ) -> Result<(), GraphError> {
        let by = per_channel(by, self.scale.len())?;
        for ((scale, shift), value) in self.scale.iter_mut().zip(&mut self.shift).zip(by) {
            let (factor, term) = terms(value);
            *scale *= factor;
            *shift = *shift * factor + term;
        }
        Ok(())
    }

    /// Appends a BatchNormalization.
    pub fn batch_norm(&mut self, norm: &BatchNormParameters) -> Result<(), GraphError> {
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

    /// Returns the values of `filters`, each filter multiplied by its channel's scale / `divisor`.
    pub fn scaled(&self, filters: &TensorProto, divisor: f64) -> Result<Vec<f32>, GraphError> {
        let mut scaled = values(filters)?;
        let count = scaled.len() / self.scale.len().max(1);
        for (filter, scale) in scaled.chunks_mut(count.max(1)).zip(&self.scale) {
            for value in filter {
                *value = (f64::from(*value) * scale / divisor) as f32;
            }
        }
        Ok(scaled)
    }
}

/// Returns one value per channel; repeats a single value.
fn per_channel(tensor: &TensorProto, channels: usize) -> Result<Vec<f64>, GraphError> {
    let stored = values(tensor)?;
    if stored.len() != 1 {
        check_channels(tensor, channels)?;
    }
    let stored = stored.into_iter().map(f64::from);
    Ok(stored.cycle().take(channels).collect())
}

/// Checks that the tensor has one value per channel.
pub(super) fn check_channels(tensor: &TensorProto, channels: usize) -> Result<(), GraphError> {
    if numel(tensor)? == channels {
        return Ok(());
    }
    Err(GraphError::Tensor {
        name: tensor.name.clone(),
        reason: format!(
            "the shape {:?} does not fit {channels} channels",
            tensor.dims
        ),
    })
}

//! What layers do to each channel by itself, taken together.

use super::network::Norm;
use super::tensor::{numel, values};
use super::{GraphError, TensorProto};

/// A factor and then a term for each channel, in float64: what a list of steps comes to.
pub(super) struct Affine {
    pub scale: Vec<f64>,
    pub shift: Vec<f64>,
}

impl Affine {
    /// Leaves so many channels as they are.
    pub fn identity(channels: usize) -> Self {
        Self {
            scale: vec![1.0; channels],
            shift: vec![0.0; channels],
        }
    }

    /// Adds a step, a factor and then a term, made of one value or of one a channel.
    pub fn apply(
        &mut self,
        by: &TensorProto,
        step: impl Fn(f64) -> (f64, f64),
    ) -> Result<(), GraphError> {
        let by = per_channel(by, self.scale.len())?;
        for ((scale, shift), value) in self.scale.iter_mut().zip(&mut self.shift).zip(by) {
            let (factor, term) = step(value);
            *scale *= factor;
            *shift = *shift * factor + term;
        }
        Ok(())
    }

    /// Adds a BatchNormalization.
    pub fn normalise(&mut self, norm: &Norm) -> Result<(), GraphError> {
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

    /// The values of `filters`, each filter times its channel's factor over `divisor`.
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

/// One value a channel, from as many or from a single one.
fn per_channel(tensor: &TensorProto, channels: usize) -> Result<Vec<f64>, GraphError> {
    let stored = values(tensor)?;
    if stored.len() != 1 {
        check_channels(tensor, channels)?;
    }
    let stored = stored.into_iter().map(f64::from);
    Ok(stored.cycle().take(channels).collect())
}

/// The tensor has one value a channel.
pub(super) fn check_channels(tensor: &TensorProto, channels: usize) -> Result<(), GraphError> {
    if numel(tensor)? == channels {
        return Ok(());
    }
    Err(GraphError::Tensor {
        name: tensor.name.clone(),
        reason: format!("shape {:?} does not fit {channels} channels", tensor.dims),
    })
}

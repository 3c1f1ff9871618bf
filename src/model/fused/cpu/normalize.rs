//! Batch normalization with optional ReLU on slices.
//!
//! One thread computes a channel from its statistics to its result. The channel is read from memory
//! only once, because its values in a batch fit the second-level cache.

use rayon::prelude::*;

use super::buffers;
use super::sums::{sum, sum_by};

/// Shape `[batch, channels, plane]` of the values; the batch follows from their number.
#[derive(Debug, Clone, Copy)]
pub(super) struct NormShape {
    pub channels: usize,
    pub plane: usize,
}

/// Scale, shift and activation applied after normalization.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScaleShift<'a> {
    pub gamma: &'a [f32],
    pub beta: &'a [f32],
    /// Whether ReLU follows.
    pub relu: bool,
}

/// Statistics of each channel.
#[derive(Debug, Clone, Default)]
pub(in crate::model::fused) struct Moments {
    pub mean: Vec<f32>,
    /// Biased variance.
    pub variance: Vec<f32>,
}

/// Gradients of a layer's parameters.
pub(super) struct NormGradients {
    pub gamma: Vec<f32>,
    pub beta: Vec<f32>,
}

impl NormShape {
    fn planes<'a>(&self, values: &'a [f32], channel: usize) -> impl Iterator<Item = &'a [f32]> {
        let planes = values.chunks_exact(self.plane);
        planes.skip(channel).step_by(self.channels)
    }

    /// Returns the planes of each channel.
    fn channels_mut<'a>(&self, values: &'a mut [f32]) -> Vec<Vec<&'a mut [f32]>> {
        let batch = values.len() / (self.channels * self.plane);
        let mut channels: Vec<_> = (0..self.channels)
            .map(|_| Vec::with_capacity(batch))
            .collect();
        for (number, plane) in values.chunks_exact_mut(self.plane).enumerate() {
            channels[number % self.channels].push(plane);
        }
        channels
    }
}

/// Returns mean and biased variance of planes of equal size, combined as in Chan, Golub and
/// `LeVeque` (1983).
fn moments<'a>(planes: impl Iterator<Item = &'a [f32]>) -> (f64, f64) {
    let (mut count, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for plane in planes {
        let length = plane.len() as f64;
        let centre = (f64::from(sum(plane)) / length) as f32;
        let spread = sum_by(plane, plane, |value, _| (value - centre) * (value - centre));
        let apart = f64::from(centre) - mean;
        let total = count + length;
        mean += apart * length / total;
        squares += f64::from(spread) + apart * apart * count * length / total;
        count = total;
    }
    (mean, squares / count)
}

/// Normalizes `input` by its own statistics; returns the output and the statistics.
pub(super) fn normalize(
    shape: NormShape,
    input: &[f32],
    affine: ScaleShift<'_>,
    epsilon: f64,
) -> (Vec<f32>, Moments) {
    let mut output = buffers::take(input.len());
    let statistics: Vec<(f32, f32)> = shape
        .channels_mut(&mut output)
        .into_par_iter()
        .enumerate()
        .map(|(channel, planes)| {
            let (mean, variance) = moments(shape.planes(input, channel));
            let scale = f64::from(affine.gamma[channel]) / (variance + epsilon).sqrt();
            let shift = f64::from(affine.beta[channel]) - scale * mean;
            let (scale, shift) = (scale as f32, shift as f32);
            let floor = if affine.relu { 0.0 } else { f32::NEG_INFINITY };
            for (to, from) in planes.into_iter().zip(shape.planes(input, channel)) {
                for (to, from) in to.iter_mut().zip(from) {
                    *to = (scale * from + shift).max(floor);
                }
            }
            (mean as f32, variance as f32)
        })
        .collect();
    let (mean, variance) = statistics.into_iter().unzip();
    (output, Moments { mean, variance })
}

/// Replaces the gradient of [`normalize`]'s output by the gradient of its input, in `gradient`. The
/// output's gradient is `source`, or else the content of `gradient`.
pub(super) fn normalize_gradient(
    shape: NormShape,
    (input, source): (&[f32], Option<&[f32]>),
    (affine, moments, epsilon): (ScaleShift<'_>, &Moments, f64),
    gradient: &mut [f32],
) -> NormGradients {
    let sums: Vec<(f32, f32)> = shape
        .channels_mut(gradient)
        .into_par_iter()
        .enumerate()
        .map(|(channel, mut planes)| {
            if let Some(source) = source {
                let source = shape.planes(source, channel);
                planes
                    .iter_mut()
                    .zip(source)
                    .for_each(|(to, from)| to.copy_from_slice(from));
            }
            let mean = moments.mean[channel];
            let root = (1.0 / (f64::from(moments.variance[channel]) + epsilon).sqrt()) as f32;
            let (gamma, beta) = (affine.gamma[channel], affine.beta[channel]);
            let (mut total, mut along) = (0.0, 0.0);
            for (gradient, input) in planes.iter_mut().zip(shape.planes(input, channel)) {
                if affine.relu {
                    let (scale, shift) = (gamma * root, beta - gamma * root * mean);
                    for (gradient, input) in gradient.iter_mut().zip(input) {
                        *gradient = if scale * input + shift > 0.0 {
                            *gradient
                        } else {
                            0.0
                        };
                    }
                }
                total += f64::from(sum(gradient));
                along += f64::from(sum_by(gradient, input, |gradient, input| {
                    gradient * (input - mean)
                }));
            }
            along *= f64::from(root);
            let count = (planes.len() * shape.plane) as f64;
            let scale = gamma * root;
            let slope = -(along / count) as f32 * scale * root;
            let shift = -(total / count) as f32 * scale;
            for (gradient, input) in planes.into_iter().zip(shape.planes(input, channel)) {
                for (gradient, input) in gradient.iter_mut().zip(input) {
                    *gradient = scale * *gradient + (slope * (input - mean) + shift);
                }
            }
            (along as f32, total as f32)
        })
        .collect();
    let (gamma, beta) = sums.into_iter().unzip();
    NormGradients { gamma, beta }
}

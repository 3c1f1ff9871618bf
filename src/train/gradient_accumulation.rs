//! Accumulation of one gradient from several batches.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// The mean of gradients over batches, each weighted by its number of samples.
///
/// If the loss is a mean over samples and no layer combines samples, this is the gradient of one
/// batch with all samples. BatchNorm and soft F1 use each batch separately.
#[derive(Default)]
pub(super) struct GradientAccumulator {
    mean: GradientsParams,
    samples: usize,
}

impl GradientAccumulator {
    /// Adds the gradients of the mean loss of `samples` samples; `samples` is at least 1.
    pub fn add<M: Module>(&mut self, module: &M, gradients: GradientsParams, samples: usize) {
        self.samples += samples;
        if self.samples == samples {
            self.mean = gradients;
            return;
        }
        let weight = samples as f64 / self.samples as f64;
        module.visit(&mut WeightedMean {
            mean: &mut self.mean,
            gradients,
            weight,
        });
    }

    /// Returns the mean and resets the accumulator. The gradients of a single batch stay
    /// bit-identical.
    #[must_use]
    pub fn take(&mut self) -> GradientsParams {
        std::mem::take(self).mean
    }
}

/// Updates `mean ← mean·(1−weight) + gradients·weight`; an absent gradient counts as zero.
struct WeightedMean<'a> {
    mean: &'a mut GradientsParams,
    gradients: GradientsParams,
    weight: f64,
}

impl ModuleVisitor for WeightedMean<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let old = self.mean.remove::<D>(param.id);
        let new = self.gradients.remove::<D>(param.id);
        let old = old.map(|old| old.mul_scalar(1.0 - self.weight));
        let new = new.map(|new| new.mul_scalar(self.weight));
        let mean = match (old, new) {
            (Some(old), Some(new)) => old + new,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return,
        };
        self.mean.register(param.id, mean);
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::activation::relu;
    use burn::tensor::{Device, TensorData};

    use super::*;
    use crate::train::bce;

    #[derive(Module, Debug)]
    struct TwoLayers {
        hidden: Linear,
        output: Linear,
        unused: Linear,
    }

    struct GradientProblem {
        network: TwoLayers,
        inputs: Tensor<2>,
        targets: Tensor<2>,
    }

    fn problem() -> GradientProblem {
        let device = Device::flex().autodiff();
        device.seed(7);
        let network = TwoLayers {
            hidden: LinearConfig::new(5, 16).init(&device),
            output: LinearConfig::new(16, 3).init(&device),
            unused: LinearConfig::new(2, 2).init(&device),
        };
        let value = |i: usize| ((i * 7919) % 2003) as f32 / 1001.0 - 1.0;
        let inputs: Vec<f32> = (0..50).map(value).collect();
        let targets: Vec<f32> = (0..30).map(|i| f32::from(value(i) > 0.3)).collect();
        GradientProblem {
            network,
            inputs: Tensor::from_data(TensorData::new(inputs, [10, 5]), &device),
            targets: Tensor::from_data(TensorData::new(targets, [10, 3]), &device),
        }
    }

    impl GradientProblem {
        fn gradients(&self, samples: std::ops::Range<usize>) -> GradientsParams {
            let network = &self.network;
            let inputs = self.inputs.clone().slice([samples.clone()]);
            let targets = self.targets.clone().slice([samples]);
            let logits = network.output.forward(relu(network.hidden.forward(inputs)));
            GradientsParams::from_grads(bce(logits, targets, None).backward(), network)
        }

        fn mean(&self, cuts: &[usize]) -> GradientsParams {
            let mut accumulator = GradientAccumulator::default();
            for pair in cuts.windows(2) {
                accumulator.add(
                    &self.network,
                    self.gradients(pair[0]..pair[1]),
                    pair[1] - pair[0],
                );
            }
            assert_eq!(accumulator.samples, 10);
            let mean = accumulator.take();
            assert_eq!((accumulator.samples, accumulator.take().len()), (0, 0));
            mean
        }

        fn values(&self, gradients: &GradientsParams) -> Vec<f32> {
            assert_eq!(gradients.len(), 4);
            let mut values = Vec::new();
            for layer in [&self.network.hidden, &self.network.output] {
                let weight = gradients.get::<2>(layer.weight.id).unwrap();
                let bias = layer.bias.as_ref().unwrap().id;
                let bias = gradients.get::<1>(bias).unwrap();
                values.extend(weight.into_data().iter::<f32>());
                values.extend(bias.into_data().iter::<f32>());
            }
            values
        }
    }

    #[test]
    fn small_batches_give_the_gradient_of_one_large_batch() {
        let problem = problem();
        let expected = problem.values(&problem.gradients(0..10));
        let largest = expected.iter().fold(0.0_f32, |most, g| most.max(g.abs()));
        assert!(largest > 1e-2, "{largest}");
        for cuts in [
            &[0, 5, 10][..],
            &[0, 2, 4, 6, 8, 10],
            &[0, 4, 8, 10],
            &[0, 1, 10],
        ] {
            let found = problem.values(&problem.mean(cuts));
            for (found, expected) in found.iter().zip(&expected) {
                let apart = (found - expected).abs();
                assert!(apart <= 1e-6 * largest, "{cuts:?}: {found} for {expected}");
            }
        }
        // A single batch is unchanged.
        assert_eq!(problem.values(&problem.mean(&[0, 10])), expected);
    }
}

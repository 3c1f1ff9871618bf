//! An exponential moving average of a network's weights (Polyak and Juditsky 1992).

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;
use burn::tensor::container::TensorContainer;
use rayon::prelude::*;

use super::cpu_slices::{CHUNK, is_cpu, values, values_mut};
use crate::model::Classifier;
#[cfg(feature = "torch")]
use crate::model::fused::torch;

/// The moving average of a network's parameters and BatchNorm statistics.
///
/// After each step, `average ← d·average + (1−d)·weight`, where `d` is the smaller of the decay and
/// `(1+n)/(10+n)` at step `n` from 0, as in TensorFlow's `ExponentialMovingAverage`. This warm-up
/// quickly reduces the influence of the first weights.
#[derive(Debug)]
pub struct Ema<M = Classifier> {
    /// `None` only during an update, which works in place if this is the only reference.
    average: Option<M>,
    decay: f64,
}

/// Invariant: [`Ema::update`] restores the average that it takes.
const PRESENT: &str = "the average is absent only inside an update";
/// Invariant: networks of the same structure are visited in the same order.
const SAME_NETWORK: &str = "the trained network has the structure of the averaged one";

impl<M: Module> Ema<M> {
    /// Creates an average that starts at `network`: the network of a new run, or the averaged
    /// network of a resumed run. `decay` is the weight of the old average, 0–1.
    #[must_use]
    pub fn new(network: &M, decay: f64) -> Self {
        Self {
            // `valid` gives the average its own running statistics.
            average: Some(network.valid()),
            decay,
        }
    }

    /// Updates the average with the weights after step `step` of the run, counted from 0.
    ///
    /// # Panics
    ///
    /// If `network` has another structure than the average, or an earlier update panicked.
    pub fn update(&mut self, network: &M, step: u64) {
        let mut weights = TensorCollector::default();
        // `valid` shares the parameters and returns the current running statistics.
        network.valid().visit(&mut weights);
        let step = step as f64;
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        let mut update = EmaUpdate {
            weights: weights.tensors,
            visited: 0,
            rate: 1.0 - decay,
        };
        let average = self.average.take().expect(PRESENT);
        self.average = Some(average.map(&mut update));
    }

    /// Returns the averaged network in inference mode.
    ///
    /// # Panics
    ///
    /// If an earlier update panicked.
    #[must_use]
    pub fn network(&self) -> &M {
        self.average.as_ref().expect(PRESENT)
    }
}

/// Collects tensors, keyed by their position in the order of visits.
#[derive(Default)]
struct TensorCollector {
    tensors: TensorContainer<usize>,
}

impl ModuleVisitor for TensorCollector {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.tensors.register(self.tensors.len(), param.val());
    }
}

/// Updates `average ← average + rate·(weight − average)`.
struct EmaUpdate {
    weights: TensorContainer<usize>,
    visited: usize,
    rate: f64,
}

impl ModuleMapper for EmaUpdate {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let weight: Tensor<D> = self.weights.remove(&self.visited).expect(SAME_NETWORK);
        self.visited += 1;
        param.map(|average| {
            assert_eq!(average.dims(), weight.dims(), "{SAME_NETWORK}");
            #[cfg(feature = "torch")]
            if torch::is_torch(&average.device()) {
                return torch::lerp(average, weight, self.rate);
            }
            if is_cpu(&average.device()) {
                update_fused(average, weight, self.rate as f32)
            } else {
                let step = (weight - average.clone()).mul_scalar(self.rate);
                average + step
            }
        })
    }
}

/// Computes the update in one pass over memory.
fn update_fused<const D: usize>(average: Tensor<D>, weight: Tensor<D>, rate: f32) -> Tensor<D> {
    let device = average.device();
    let mut average = average.into_data();
    let weight = weight.into_data();
    (
        values_mut(&mut average).par_chunks_mut(CHUNK),
        values(&weight).par_chunks(CHUNK),
    )
        .into_par_iter()
        .for_each(|(averages, weights)| {
            for (average, &weight) in averages.iter_mut().zip(weights) {
                *average += rate * (weight - *average);
            }
        });
    Tensor::from_data(average, &device)
}

#[cfg(test)]
mod tests {
    use burn::nn::{Initializer, Linear, LinearConfig};
    use burn::optim::{GradientsParams, SgdConfig};
    use burn::tensor::{Device, TensorData};
    use burn_store::{ModuleSnapshot, bridge};

    use super::*;
    use crate::model::{
        Arch, BatchNorm2d, ModelConfig, WeightTransfer, load_weights, save_weights,
    };

    #[derive(Module, Debug)]
    struct NormLinear {
        norm: BatchNorm2d,
        output: Linear,
    }

    impl NormLinear {
        fn new() -> Self {
            let device = Device::flex().autodiff();
            let network = Self {
                norm: BatchNorm2d::new(3, 1e-5, 0.1, &device),
                // Constant, because other tests use the random generator of the same device.
                output: LinearConfig::new(3, 2)
                    .with_initializer(Initializer::Constant { value: 0.3 })
                    .init(&device),
            };
            network.materialize()
        }

        /// Returns the network after a training step on batch number `step`.
        fn trained(self, step: u64) -> Self {
            let device = Device::flex().autodiff();
            let value = |i: u64| ((i * 7919 + step * 104_729) % 2003) as f32 / 1001.0 - 0.5;
            let input = TensorData::new((0..12).map(value).collect::<Vec<_>>(), [4, 3, 1, 1]);
            let x = self.norm.forward(Tensor::<4>::from_data(input, &device));
            let loss = self.output.forward(x.flatten::<2>(1, 3)).square().mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &self);
            SgdConfig::new().init().step(0.1, self, gradients)
        }
    }

    /// All values by path.
    type Snapshot = Vec<(String, Vec<f32>)>;

    fn snapshot(network: &impl ModuleSnapshot) -> Snapshot {
        let tensors = network.collect(None, None, false);
        let data = |tensor| bridge::to_data(tensor).unwrap().iter::<f32>().collect();
        tensors.iter().map(|t| (t.name.clone(), data(t))).collect()
    }

    const STEPS: u64 = 40;

    /// Returns the averaged and the trained network after each step.
    fn run(decay: f64) -> Vec<(Snapshot, Snapshot)> {
        let mut network = NormLinear::new();
        let mut ema = Ema::new(&network, decay);
        let mut found = vec![(snapshot(ema.network()), snapshot(&network.valid()))];
        for step in 0..STEPS {
            network = network.trained(step);
            ema.update(&network, step);
            found.push((snapshot(ema.network()), snapshot(&network.valid())));
        }
        found
    }

    #[test]
    fn averages_follow_the_formula() {
        // The first decay exceeds the warm-up in all steps, the second only before step 8.
        for decay in [0.999, 0.5] {
            let found = run(decay);
            let (start, network) = &found[0];
            assert_eq!(start, network);
            let names: Vec<_> = start.iter().map(|(name, _)| name.as_str()).collect();
            assert!(names.contains(&"norm.running_var"), "{names:?}");
            let mut expected: Vec<Vec<f64>> = start
                .iter()
                .map(|(_, values)| values.iter().map(|v| f64::from(*v)).collect())
                .collect();
            for (step, (average, network)) in found[1..].iter().enumerate() {
                let step = step as f64;
                let kept = decay.min((1.0 + step) / (10.0 + step));
                for ((expected, (name, average)), (_, weights)) in
                    expected.iter_mut().zip(average).zip(network)
                {
                    for ((expected, found), weight) in expected.iter_mut().zip(average).zip(weights)
                    {
                        *expected = kept * *expected + (1.0 - kept) * f64::from(*weight);
                        let apart = (f64::from(*found) - *expected).abs();
                        assert!(apart <= 1e-6, "{name}: {found} for {expected}");
                    }
                }
            }
            // Every value changes, and the average differs from the network.
            let (average, network) = &found[STEPS as usize];
            for ((start, average), network) in start.iter().zip(average).zip(network) {
                assert!(start != average && average != network, "{}", start.0);
            }
        }
    }

    #[test]
    fn equal_runs_are_bit_identical() {
        assert_eq!(run(0.99), run(0.99));
    }

    #[test]
    fn fused_update_agrees_with_tensor_operations() {
        let device = Device::flex();
        let size = CHUNK + 37;
        let tensor = |factor: usize| {
            let value = |i: usize| ((i * factor) % 2003) as f32 / 1001.0 - 1.0;
            let values: Vec<f32> = (0..size).map(value).collect();
            Tensor::<1>::from_data(TensorData::new(values, [size]), &device)
        };
        let (average, weight) = (tensor(7919), tensor(104_729));
        let plain = average.clone() + (weight.clone() - average.clone()).mul_scalar(0.1);
        let fused = update_fused(average, weight, 0.1);
        assert!((fused - plain).abs().max().into_scalar::<f32>() <= 1e-7);
    }

    #[test]
    fn saved_average_predicts_and_resumes_bit_identically() {
        let device = Device::flex().autodiff();
        let config = ModelConfig::new(Arch::Baseline, 12);
        let network = |seed| Classifier::new(&config, seed, &device);
        let mut ema = Ema::new(&network(1), 0.9);
        ema.update(&network(2), 0);
        ema.update(&network(3), 1);

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ema.bpk");
        save_weights(ema.network(), &path).unwrap();
        let loaded = load_weights(network(4), &path, WeightTransfer::All).unwrap();
        let values: Vec<f32> = (0..4 * 144).map(|i| (i % 17) as f32 / 17.0).collect();
        let images = TensorData::new(values, [1, 4, 12, 12]);
        let images = Tensor::<4>::from_data(images, &Device::flex());
        let predict =
            |classifier: &Classifier| classifier.probabilities(images.clone()).into_data();
        let expected = predict(ema.network());
        assert_eq!(predict(&loaded.valid()), expected);
        assert_ne!(predict(&network(3).valid()), expected);

        let mut resumed = Ema::new(&loaded, 0.9);
        for ema in [&mut ema, &mut resumed] {
            ema.update(&network(5), 2);
        }
        assert_eq!(predict(resumed.network()), predict(ema.network()));
        assert_ne!(predict(ema.network()), expected);
    }

    #[test]
    #[should_panic(expected = "the trained network has the structure of the averaged one")]
    fn rejects_a_network_of_another_structure() {
        let device = Device::flex().autodiff();
        let network = |side| Classifier::new(&ModelConfig::new(Arch::Baseline, side), 0, &device);
        Ema::new(&network(12), 0.9).update(&network(16), 0);
    }
}

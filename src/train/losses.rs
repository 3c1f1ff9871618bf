//! Losses that wait on the device, to be read together.
//!
//! Reading a number waits for everything that was asked of the device before it. On the CPU that
//! costs nothing; a GPU would stand idle while the next step is prepared.

use burn::tensor::{Device, Tensor};

use super::one_pass::is_cpu;

/// Steps whose losses are read at once from a device with a queue.
const TOGETHER: usize = 16;

/// A step's loss, still on the device.
#[derive(Debug)]
#[must_use = "the loss is not read yet"]
pub struct StepLoss {
    /// Mean loss of each batch of the step, of shape `[1]`, and the batch's samples.
    batches: Vec<(Tensor<1>, usize)>,
}

impl StepLoss {
    pub(super) fn new(batches: Vec<(Tensor<1>, usize)>) -> Self {
        Self { batches }
    }

    /// Mean loss of the step's samples. Waits until the device has taken the step.
    #[must_use]
    pub fn read(self) -> f64 {
        read(&[self])[0]
    }
}

/// The loss of each step, read in one go.
fn read(steps: &[StepLoss]) -> Vec<f64> {
    let batches = steps.iter().flat_map(|step| &step.batches);
    let losses = Tensor::cat(batches.map(|(loss, _)| loss.clone()).collect(), 0).into_data();
    let mut losses = losses.iter::<f32>();
    let mean = |step: &StepLoss| {
        let samples: usize = step.batches.iter().map(|(_, samples)| samples).sum();
        // In this order, `zip` takes no loss that is not its own.
        let weighted = step.batches.iter().zip(losses.by_ref());
        let sum: f64 = weighted
            .map(|((_, samples), loss)| f64::from(loss) * *samples as f64)
            .sum();
        sum / samples as f64
    };
    steps.iter().map(mean).collect()
}

/// A loss that is not a number, and where it came up.
#[derive(Debug)]
pub(super) struct BadLoss {
    pub loss: f64,
    /// The step in its epoch, from 1.
    pub step: usize,
    /// The step's first sample.
    pub first: usize,
}

/// The losses of steps that were taken, until they are read.
pub(super) struct Losses {
    waiting: Vec<StepLoss>,
    /// For each of them: the step in its epoch, from 1, and its first sample.
    places: Vec<(usize, usize)>,
    together: usize,
}

impl Losses {
    /// For steps on `device`: each is read by itself on the CPU, 16 at once elsewhere.
    pub fn on(device: &Device) -> Self {
        Self::together(if is_cpu(device) { 1 } else { TOGETHER })
    }

    fn together(together: usize) -> Self {
        Self {
            waiting: Vec::new(),
            places: Vec::new(),
            together,
        }
    }

    /// Steps whose losses wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes in the loss of step number `step` of its epoch, from 1.
    pub fn push(&mut self, loss: StepLoss, step: usize, first: usize) {
        self.waiting.push(loss);
        self.places.push((step, first));
    }

    /// Whether enough of them wait to be worth reading.
    pub fn are_due(&self) -> bool {
        self.waiting.len() >= self.together
    }

    /// Reads what waits and adds it to `sum` in the order of the steps, so that the sum does not
    /// depend on when it is read.
    ///
    /// # Errors
    ///
    /// The first loss that is not a number; `sum` holds those before it.
    pub fn settle(&mut self, sum: &mut f64) -> Result<(), BadLoss> {
        let waiting = std::mem::take(&mut self.waiting);
        let places = std::mem::take(&mut self.places);
        if waiting.is_empty() {
            return Ok(());
        }
        for (loss, (step, first)) in read(&waiting).into_iter().zip(places) {
            if !loss.is_finite() {
                return Err(BadLoss { loss, step, first });
            }
            *sum += loss;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss of a step of two batches, of 3 samples and of 1.
    fn loss(first: f32, second: f32) -> StepLoss {
        let one = |value: f32| Tensor::from_floats([value], &Device::flex());
        StepLoss::new(vec![(one(first), 3), (one(second), 1)])
    }

    #[test]
    fn a_steps_loss_is_the_mean_over_its_samples() {
        assert_eq!(loss(0.5, 0.25).read().to_bits(), 0.4375_f64.to_bits());
    }

    #[test]
    fn the_sum_is_the_same_to_the_bit_however_many_are_read_at_once() {
        let sum = |together: usize| {
            let mut losses = Losses::together(together);
            let mut sum = 0.1;
            for step in 1..=20_u8 {
                let value = 1.0 / f32::from(step);
                losses.push(loss(value, value * 0.7), step.into(), 0);
                if losses.are_due() {
                    losses.settle(&mut sum).unwrap();
                    assert_eq!(losses.len(), 0);
                }
            }
            losses.settle(&mut sum).unwrap();
            losses.settle(&mut sum).unwrap();
            sum.to_bits()
        };
        let expected = sum(1);
        for together in [2, 7, 16, 100] {
            assert_eq!(sum(together), expected, "{together}");
        }
    }

    #[test]
    fn the_first_bad_loss_is_named_and_nothing_after_it_is_added() {
        let mut losses = Losses::together(16);
        losses.push(loss(1.0, 1.0), 4, 40);
        losses.push(loss(1.0, f32::INFINITY), 5, 50);
        losses.push(loss(f32::NAN, 1.0), 6, 60);
        let mut sum = 0.0;
        let bad = losses.settle(&mut sum).unwrap_err();
        assert_eq!((bad.loss, bad.step, bad.first), (f64::INFINITY, 5, 50));
        assert_eq!(sum.to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn the_cpu_is_read_at_each_step() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let mut losses = Losses::on(&device);
            assert!(!losses.are_due());
            losses.push(loss(1.0, 1.0), 1, 0);
            assert!(losses.are_due());
        }
    }
}

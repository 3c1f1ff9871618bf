//! Losses that stay on the device until several are read together.
//!
//! Reading a number waits for all operations queued on the device before it. On the CPU that
//! costs nothing; a GPU would be idle while the next step is prepared.

use burn::tensor::{Device, Tensor};

use super::cpu_slices::is_cpu;

/// Number of steps whose losses are read at once from a device with a queue.
const STEPS_PER_READ: usize = 16;

/// The loss of a step, still on the device.
#[derive(Debug)]
#[must_use = "the loss is not read yet"]
pub struct StepLoss {
    /// For each batch of the step, its mean loss `[1]` and its number of samples.
    batches: Vec<(Tensor<1>, usize)>,
}

impl StepLoss {
    pub(super) fn new(batches: Vec<(Tensor<1>, usize)>) -> Self {
        Self { batches }
    }

    /// Reads the mean loss over the step's samples. Waits until the device has computed the step.
    #[must_use]
    pub fn read(self) -> f64 {
        read(&[self])[0]
    }
}

/// Reads the mean loss of each step in one transfer.
fn read(steps: &[StepLoss]) -> Vec<f64> {
    let batches = steps.iter().flat_map(|step| &step.batches);
    let losses = Tensor::cat(batches.map(|(loss, _)| loss.clone()).collect(), 0).into_data();
    let mut losses = losses.iter::<f32>();
    let mean = |step: &StepLoss| {
        let samples: usize = step.batches.iter().map(|(_, samples)| samples).sum();
        // `losses` must be the second operand: `zip` would else consume one loss of the next step.
        let weighted = step.batches.iter().zip(losses.by_ref());
        let sum: f64 = weighted
            .map(|((_, samples), loss)| f64::from(loss) * *samples as f64)
            .sum();
        sum / samples as f64
    };
    steps.iter().map(mean).collect()
}

/// A loss that is infinite or not a number, and the step that had it.
#[derive(Debug)]
pub(super) struct NonFiniteLoss {
    pub loss: f64,
    /// Number of the step in its epoch, from 1.
    pub step: usize,
    /// Index of the step's first sample.
    pub first_sample: usize,
}

/// Losses of finished steps that were not read yet.
pub(super) struct PendingLosses {
    losses: Vec<StepLoss>,
    /// For each loss: the number of the step in its epoch, from 1, and the step's first sample.
    steps: Vec<(usize, usize)>,
    steps_per_read: usize,
}

impl PendingLosses {
    /// Reads each loss at once on the CPU, and 16 at a time on other devices.
    pub fn for_device(device: &Device) -> Self {
        Self::new(if is_cpu(device) { 1 } else { STEPS_PER_READ })
    }

    fn new(steps_per_read: usize) -> Self {
        Self {
            losses: Vec::new(),
            steps: Vec::new(),
            steps_per_read,
        }
    }

    /// Number of losses that were not read yet.
    pub fn len(&self) -> usize {
        self.losses.len()
    }

    /// Adds the loss of step number `step` of its epoch, from 1.
    pub fn push(&mut self, loss: StepLoss, step: usize, first_sample: usize) {
        self.losses.push(loss);
        self.steps.push((step, first_sample));
    }

    /// Returns whether enough losses have accumulated to read them.
    pub fn is_read_due(&self) -> bool {
        self.losses.len() >= self.steps_per_read
    }

    /// Reads all pending losses and adds them to `sum` in the order of the steps, so that the sum
    /// does not depend on when they are read.
    ///
    /// # Errors
    ///
    /// The first loss that is not finite; `sum` then contains the losses before it.
    pub fn read_into(&mut self, sum: &mut f64) -> Result<(), NonFiniteLoss> {
        let losses = std::mem::take(&mut self.losses);
        let steps = std::mem::take(&mut self.steps);
        if losses.is_empty() {
            return Ok(());
        }
        for (loss, (step, first_sample)) in read(&losses).into_iter().zip(steps) {
            if !loss.is_finite() {
                return Err(NonFiniteLoss {
                    loss,
                    step,
                    first_sample,
                });
            }
            *sum += loss;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The loss of a step with two batches, of 3 samples and of 1 sample.
    fn loss(first: f32, second: f32) -> StepLoss {
        let one = |value: f32| Tensor::from_floats([value], &Device::flex());
        StepLoss::new(vec![(one(first), 3), (one(second), 1)])
    }

    #[test]
    fn step_loss_is_the_mean_over_samples() {
        assert_eq!(loss(0.5, 0.25).read().to_bits(), 0.4375_f64.to_bits());
    }

    #[test]
    fn loss_sum_is_bit_identical_for_any_number_of_steps_per_read() {
        let sum = |steps_per_read: usize| {
            let mut losses = PendingLosses::new(steps_per_read);
            let mut sum = 0.1;
            for step in 1..=20_u8 {
                let value = 1.0 / f32::from(step);
                losses.push(loss(value, value * 0.7), step.into(), 0);
                if losses.is_read_due() {
                    losses.read_into(&mut sum).unwrap();
                    assert_eq!(losses.len(), 0);
                }
            }
            losses.read_into(&mut sum).unwrap();
            losses.read_into(&mut sum).unwrap();
            sum.to_bits()
        };
        let expected = sum(1);
        for steps_per_read in [2, 7, 16, 100] {
            assert_eq!(sum(steps_per_read), expected, "{steps_per_read}");
        }
    }

    #[test]
    fn reports_the_first_non_finite_loss_and_adds_nothing_after_it() {
        let mut losses = PendingLosses::new(16);
        losses.push(loss(1.0, 1.0), 4, 40);
        losses.push(loss(1.0, f32::INFINITY), 5, 50);
        losses.push(loss(f32::NAN, 1.0), 6, 60);
        let mut sum = 0.0;
        let bad = losses.read_into(&mut sum).unwrap_err();
        assert_eq!(
            (bad.loss, bad.step, bad.first_sample),
            (f64::INFINITY, 5, 50)
        );
        assert_eq!(sum.to_bits(), 1.0_f64.to_bits());
    }

    #[test]
    fn reads_each_step_on_the_cpu() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let mut losses = PendingLosses::for_device(&device);
            assert!(!losses.is_read_due());
            losses.push(loss(1.0, 1.0), 1, 0);
            assert!(losses.is_read_due());
        }
    }
}

//! Checks before the first step that a batch fits into memory.
//!
//! Without the check, the system's out-of-memory killer would end the run.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::cpu_slices::is_cpu;
use super::{Config, TrainError};
use crate::memory;
use crate::model::{Classifier, freeze};

/// Upper bound of the memory of a training step, as a multiple of the batch's own bytes, for any
/// network. If even this bound is available, nothing is measured.
const MAX_STEP_FACTOR: usize = 2000;
/// Batch sizes whose memory is measured; other sizes are extrapolated.
const PROBES: [usize; 2] = [1, 3];
/// Maximum number of state values that an optimizer stores for each parameter.
const STATES: usize = 2;

/// Checks that a batch of the config fits into the available memory.
///
/// The function measures the memory of a forward and backward pass with small batches, and
/// extrapolates linearly. Only Linux reports available and used memory, so other systems are not
/// checked. GPU memory is not checked either.
///
/// # Errors
///
/// [`TrainError::Memory`] with settings that would fit; [`TrainError::Freeze`].
pub(super) fn check_memory(config: &Config, device: &Device) -> Result<(), TrainError> {
    let batch = config.train.batch_size;
    let (channels, side) = config.model.image_shape();
    let image = channels * side * side * size_of::<f32>();
    let Some(free) = memory::available() else {
        return Ok(());
    };
    if !is_cpu(device) || batch <= PROBES[1] || batch * image * MAX_STEP_FACTOR < free {
        return Ok(());
    }
    let Some(StepMemory { fixed, per_sample }) = measure(config, device)? else {
        return Ok(());
    };
    let needed = fixed + per_sample * batch;
    // Leaves memory for other processes and the file cache.
    let free = free / 10 * 9;
    if per_sample == 0 || needed <= free {
        return Ok(());
    }
    let fitting = free.saturating_sub(fixed) / per_sample;
    let hint = if fitting == 0 {
        "not even one sample fits; use a smaller model.input_size or another network".to_owned()
    } else {
        format!(
            "set train.batch_size = {fitting} and train.accumulate = {}; the step stays nearly the \
             same",
            batch.div_ceil(fitting)
        )
    };
    Err(TrainError::Memory {
        batch,
        needed: needed as f64 / 1e9,
        free: free as f64 / 1e9,
        hint,
    })
}

/// Memory of a training step, in bytes.
struct StepMemory {
    /// Independent of the batch size.
    fixed: usize,
    per_sample: usize,
}

/// Measures the memory of a step with small batches. Returns `None` if the system does not report
/// memory use, or if no gradient passes through the backbone.
fn measure(config: &Config, device: &Device) -> Result<Option<StepMemory>, TrainError> {
    let before = memory::resident();
    let device = config.train.with_gradients(device);
    let classifier = Classifier::new(&config.model, 0, &device);
    let classifier = freeze(classifier, &least_frozen(config))?;
    if classifier.only_head_trains() {
        return Ok(None);
    }
    let (channels, side) = config.model.image_shape();
    let mut peaks = [0; 2];
    for (peak, count) in peaks.iter_mut().zip(PROBES) {
        // Restarts the peak at the current memory use.
        if !memory::reset_peak() {
            return Ok(None);
        }
        let images = Tensor::zeros([count, channels, side, side], &device);
        drop(classifier.logits(images).mean().backward());
        let Some(peak_now) = memory::peak() else {
            return Ok(None);
        };
        *peak = peak_now.saturating_sub(before.unwrap_or(0));
    }
    let per_sample = peaks[1].saturating_sub(peaks[0]) / (PROBES[1] - PROBES[0]);
    let parameters = classifier.num_params() * size_of::<f32>();
    Ok(Some(StepMemory {
        fixed: peaks[0].saturating_sub(per_sample) + STATES * parameters,
        per_sample,
    }))
}

/// Returns the freeze patterns of the stage with the fewest.
fn least_frozen(config: &Config) -> Vec<String> {
    let epochs = 0..config.train.epochs;
    let stages = epochs.map(|epoch| config.train.stage(epoch).1.freeze);
    stages.min_by_key(Vec::len).unwrap_or_default()
}

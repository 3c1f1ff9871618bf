//! Whether a batch fits into memory, told before the first step and not by the system's killer.

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::one_pass::is_cpu;
use super::{Config, TrainError};
use crate::memory;
use crate::model::{Classifier, freeze};

/// Backwards passes need less than this many times a batch's own bytes, whatever the network; a
/// batch so small that even that is there need not be measured.
const MOST: usize = 2000;
/// Batches whose memory is measured; the rest follows from the difference.
const PROBES: [usize; 2] = [1, 3];
/// Values that an optimizer keeps of each parameter at most, beside it and its gradient.
const STATES: usize = 2;

/// Refuses a config whose batches would not fit into the memory that is free.
///
/// The memory of a forward and backward pass of small batches is measured on a network of the
/// config; it grows in proportion. Only Linux tells how much memory there is and how much was
/// taken, and only of the CPU's.
///
/// # Errors
///
/// [`TrainError::Memory`] says what would fit. A name in `freeze` that nothing has.
pub(super) fn check_memory(config: &Config, device: &Device) -> Result<(), TrainError> {
    let batch = config.train.batch_size;
    let (channels, side) = config.model.image_shape();
    let image = channels * side * side * size_of::<f32>();
    let Some(free) = memory::available() else {
        return Ok(());
    };
    if !is_cpu(device) || batch <= PROBES[1] || batch * image * MOST < free {
        return Ok(());
    }
    let Some(Need { fixed, each }) = measure(config, device)? else {
        return Ok(());
    };
    let needed = fixed + each * batch;
    // Others want memory too, and the file cache should not be squeezed out.
    let free = free / 10 * 9;
    if each == 0 || needed <= free {
        return Ok(());
    }
    let fitting = free.saturating_sub(fixed) / each;
    let mend = if fitting == 0 {
        "not even one sample fits; take a smaller model.input_size or another network".to_owned()
    } else {
        format!(
            "set train.batch_size = {fitting} and train.accumulate = {}, which makes nearly the \
             same step",
            batch.div_ceil(fitting)
        )
    };
    Err(TrainError::Memory {
        batch,
        needed: needed as f64 / 1e9,
        free: free as f64 / 1e9,
        mend,
    })
}

/// Bytes that a step takes.
struct Need {
    /// Whatever the batch.
    fixed: usize,
    /// For each of its samples.
    each: usize,
}

/// Takes passes of small batches; none where the system does not tell what they took, or where
/// nothing goes backwards through the backbone.
fn measure(config: &Config, device: &Device) -> Result<Option<Need>, TrainError> {
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
        // Lets the peak begin at what is taken now.
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
    let each = peaks[1].saturating_sub(peaks[0]) / (PROBES[1] - PROBES[0]);
    let parameters = classifier.num_params() * size_of::<f32>();
    Ok(Some(Need {
        fixed: peaks[0].saturating_sub(each) + STATES * parameters,
        each,
    }))
}

/// What is frozen in the stage that freezes least.
fn least_frozen(config: &Config) -> Vec<String> {
    let epochs = 0..config.train.epochs;
    let stages = epochs.map(|epoch| config.train.stage(epoch).1.freeze);
    stages.min_by_key(Vec::len).unwrap_or_default()
}

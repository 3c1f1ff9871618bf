//! Access to CPU tensors as slices, for fused updates.
//!
//! A fused update reads and writes memory once, instead of once for each tensor operation.

use burn::tensor::{Device, TensorData};

/// Number of values that one thread updates at a time: large compared with the scheduling cost,
/// small compared with the second-level cache.
pub(super) const CHUNK: usize = 16 * 1024;
/// Training on the CPU uses float32 throughout.
const FLOAT32: &str = "parameters on the CPU are float32";

/// Returns whether [`values`] can access tensors of `device` without a copy.
pub(super) fn is_cpu(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

/// Returns the float32 values of CPU data.
pub(super) fn values(data: &TensorData) -> &[f32] {
    data.as_slice::<f32>().expect(FLOAT32)
}

/// Returns the float32 values of CPU data for writing.
pub(super) fn values_mut(data: &mut TensorData) -> &mut [f32] {
    data.as_mut_slice::<f32>().expect(FLOAT32)
}

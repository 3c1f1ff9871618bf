//! What the updates share that go over the CPU's memory once, instead of once for each operation.

use burn::tensor::{Device, TensorData};

/// Values that one thread updates at a time: large against the cost of handing them out, small
/// against the second-level cache.
pub(super) const CHUNK: usize = 16 * 1024;
/// Training on the CPU is in float32 throughout.
const FLOAT32: &str = "parameters on the CPU are float32";

/// Whether values lie where [`values`] reaches them without a copy.
pub(super) fn is_cpu(device: &Device) -> bool {
    device.clone().without_autodiff() == Device::flex()
}

/// The values for reading.
pub(super) fn values(data: &TensorData) -> &[f32] {
    data.as_slice::<f32>().expect(FLOAT32)
}

/// The values for writing.
pub(super) fn values_mut(data: &mut TensorData) -> &mut [f32] {
    data.as_mut_slice::<f32>().expect(FLOAT32)
}

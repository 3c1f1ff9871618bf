//! The library: its version, its devices and its settings.

use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;

use super::shim;

/// Whether convolutions compute in bfloat16.
static BF16: AtomicBool = AtomicBool::new(false);

/// How precisely libtorch computes convolutions and matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TorchPrecision {
    /// float32; on NVIDIA GPUs, products of TensorFloat-32.
    Tf32,
    /// float32 everywhere.
    Fp32,
    /// Convolutions and what follows them in bfloat16, parameters and their gradients in float32.
    Bf16,
}

/// Returns whether convolutions compute in bfloat16.
pub(super) fn computes_in_bf16() -> bool {
    BF16.load(Ordering::Relaxed)
}

/// Sets the precision and whether only deterministic algorithms are used, for this process.
pub(crate) fn configure(precision: TorchPrecision, deterministic: bool, threads: usize) {
    BF16.store(precision == TorchPrecision::Bf16, Ordering::Relaxed);
    shim::set_switches(precision != TorchPrecision::Fp32, deterministic);
    tch::set_num_threads(threads as i32);
}

/// Returns the version of the library that is loaded.
///
/// # Errors
///
/// It is not the version that rgby was built with.
pub(crate) fn library_version() -> Result<&'static str, String> {
    let built = shim::built_version();
    let description = shim::library_description();
    let loaded = description
        .split("TORCH_VERSION=")
        .nth(1)
        .map(|rest| rest.split([',', ' ', '\n']).next().unwrap_or_default());
    match loaded {
        Some(loaded) if !loaded.starts_with(built) => Err(format!(
            "rgby was built with libtorch {built}, but {loaded} is loaded\nhint: set \
             LD_LIBRARY_PATH to the folder `torch/lib` of PyTorch {built}, or build rgby again"
        )),
        _ => Ok(built),
    }
}

/// Returns Burn's device for the CPU.
pub(crate) fn cpu_device() -> Device {
    Device::libtorch()
}

/// Returns Burn's device for an NVIDIA GPU.
///
/// # Errors
///
/// libtorch finds no such GPU.
pub(crate) fn cuda_device(index: usize) -> Result<Device, String> {
    let count = cuda_devices()?;
    if index >= count {
        return Err(format!(
            "the number of NVIDIA GPUs that libtorch finds is {count}"
        ));
    }
    Ok(Device::libtorch_cuda(index))
}

/// Returns Burn's device for an Apple GPU.
///
/// # Errors
///
/// libtorch finds none.
pub(crate) fn mps_device() -> Result<Device, String> {
    if tch::utils::has_mps() {
        Ok(Device::libtorch_mps())
    } else {
        Err("libtorch was built without Metal, or finds no Apple GPU".into())
    }
}

/// Returns the number of NVIDIA GPUs that libtorch can use.
///
/// # Errors
///
/// Why there are none.
pub(crate) fn cuda_devices() -> Result<usize, String> {
    if !tch::utils::has_cuda() {
        return Err("libtorch was built without CUDA, or finds no NVIDIA driver".into());
    }
    match tch::Cuda::device_count() {
        count if count > 0 => Ok(count as usize),
        _ => Err("libtorch finds no NVIDIA GPU".into()),
    }
}

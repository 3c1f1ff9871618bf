//! The GPUs that this build can use on this machine.
//!
//! Burn accepts any device and panics at the first computation if it does not exist. This module
//! therefore returns devices from an enumeration only, and tests each one before use.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor};

use rgby_common::catch_panic;

/// A GPU, or a software implementation of one.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    device: Device,
    /// For example `discrete GPU`.
    kind: &'static str,
}

impl Gpu {
    /// Creates the GPU of a device that is known to exist.
    #[must_use]
    pub fn new(device: Device, kind: &'static str) -> Self {
        Self { device, kind }
    }

    /// Returns the kind, for example `discrete GPU` or `software`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Runs a small computation on the device and returns the driver's name for it.
    ///
    /// # Errors
    ///
    /// The driver's message, or that the result is wrong.
    pub fn check(&self) -> Result<String, String> {
        let ones = || Tensor::<1>::ones([1000], &self.device);
        let sum = catch_quietly(|| ones().sum().into_scalar::<f32>())?;
        if sum as i32 != 1000 {
            return Err(format!("the sum of 1000 ones is {sum} on this device"));
        }
        catch_quietly(|| name(&self.device))
    }

    /// Returns Burn's device, without autodiff, if it passes [`check`](Self::check).
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check), or an unusable value of `RGBY_AUTOTUNE`.
    pub fn open(self) -> Result<Device, String> {
        #[cfg(any(feature = "cuda", feature = "wgpu"))]
        crate::model::fused::autotune()?;
        self.check()?;
        Ok(self.device)
    }
}

/// Returns the adapters that wgpu finds, in the order of their indices. They belong to the first
/// API that has a GPU, of Vulkan, DirectX 12 and OpenGL; on macOS to Metal.
///
/// # Errors
///
/// Why there are none.
#[cfg(feature = "wgpu")]
pub(super) fn wgpu_adapters() -> Result<Vec<Gpu>, String> {
    use burn::tensor::{DeviceKind, DeviceType};

    let found: Vec<Device> =
        catch_quietly(|| Device::enumerate(DeviceType::Wgpu).into_iter().collect())?;
    let kind = |device: &Device| {
        let is = |kind| Device::wgpu(kind) == *device;
        let each = 0..found.len();
        if each.clone().any(|i| is(DeviceKind::DiscreteGpu(i))) {
            "discrete GPU"
        } else if each.clone().any(|i| is(DeviceKind::IntegratedGpu(i))) {
            "integrated GPU"
        } else if each.clone().any(|i| is(DeviceKind::VirtualGpu(i))) {
            "virtual GPU"
        } else if is(DeviceKind::Cpu) {
            "software"
        } else {
            "GPU"
        }
    };
    let gpu = |device: &Device| Gpu {
        kind: kind(device),
        device: device.clone(),
    };
    if found.is_empty() {
        return Err("no driver for Vulkan, DirectX 12, Metal or OpenGL provides an adapter".into());
    }
    Ok(found.iter().map(gpu).collect())
}

/// Returns wgpu's default adapter, a fast one.
///
/// # Errors
///
/// Why there is none.
#[cfg(feature = "wgpu")]
pub(super) fn wgpu_default() -> Result<Gpu, String> {
    wgpu_adapters()?;
    Ok(Gpu {
        device: Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
        kind: "GPU",
    })
}

/// Returns the NVIDIA GPUs, in the order of their indices.
///
/// # Errors
///
/// Why there are none.
#[cfg(feature = "cuda")]
pub(super) fn cuda_gpus() -> Result<Vec<Gpu>, String> {
    let found = catch_quietly(|| Device::enumerate(burn::tensor::DeviceType::Cuda))?;
    if found.is_empty() {
        return Err("no NVIDIA driver (libcuda) was found, or it reports no GPU".into());
    }
    let gpu = |device| Gpu {
        device,
        kind: "NVIDIA GPU",
    };
    Ok(found.into_iter().map(gpu).collect())
}

/// Stub for a build without wgpu; always an error.
#[cfg(not(feature = "wgpu"))]
pub(super) fn wgpu_adapters() -> Result<Vec<Gpu>, String> {
    Err(not_built("wgpu"))
}

#[cfg(not(feature = "wgpu"))]
pub(super) fn wgpu_default() -> Result<Gpu, String> {
    Err(not_built("wgpu"))
}

/// Stub for a build without CUDA; always an error.
#[cfg(not(feature = "cuda"))]
pub(super) fn cuda_gpus() -> Result<Vec<Gpu>, String> {
    Err(not_built("cuda"))
}

/// Returns whether Burn's CUDA kernels compute on the device.
pub(super) fn is_cuda(device: &Device) -> bool {
    let device = device.clone().without_autodiff();
    cuda_gpus().is_ok_and(|gpus| gpus.iter().any(|gpu| gpu.device == device))
}

#[cfg(not(all(feature = "cuda", feature = "wgpu", feature = "torch")))]
pub(super) fn not_built(feature: &str) -> String {
    format!(
        "rgby was built without {feature}; `cargo build --release --features {feature}` enables it"
    )
}

#[cfg(any(feature = "cuda", feature = "wgpu"))]
fn name(device: &Device) -> String {
    let identity = device.identity();
    identity.map_or_else(|| format!("{device:?}"), |identity| identity.name)
}

#[cfg(not(any(feature = "cuda", feature = "wgpu")))]
fn name(device: &Device) -> String {
    format!("{device:?}")
}

/// Runs `operation` and returns the message of a panic instead of printing it, even if one of
/// Burn's threads panics first.
fn catch_quietly<T>(operation: impl FnOnce() -> T) -> Result<T, String> {
    // The panic hook is global to the process.
    static HOOK_LOCK: Mutex<()> = Mutex::new(());
    let guard = HOOK_LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let result = catch_unwind(AssertUnwindSafe(operation));
    set_hook(hook);
    drop(guard);
    result.map_err(|panic| catch_panic::panic_message(&*panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_a_panic_as_an_error() {
        assert_eq!(catch_quietly(|| 1), Ok(1));
        assert_eq!(
            catch_quietly(|| panic!("no {}", "driver")),
            Err::<(), _>("no driver".into())
        );
        assert_eq!(
            catch_quietly(|| panic!("none")),
            Err::<(), _>("none".into())
        );
    }

    #[test]
    fn working_device_passes_its_check() {
        let gpu = Gpu {
            device: Device::flex(),
            kind: "processor",
        };
        assert!(gpu.check().is_ok());
        assert!(gpu.open().is_ok());
    }
}

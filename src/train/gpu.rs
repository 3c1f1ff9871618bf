//! The GPUs that this build can use on this machine.
//!
//! Burn takes a device at its word and panics when it first computes on one that is not there. So
//! devices are only had from a list of what is there, and each is tried before it is used.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};

use burn::tensor::{Device, Tensor};

use rgby_common::catch_panic;

/// A GPU, or a processor that plays one.
#[derive(Debug, Clone)]
pub(super) struct Gpu {
    device: Device,
    /// As in `discrete GPU`.
    kind: &'static str,
}

impl Gpu {
    /// As in `discrete GPU` or `software`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// Tries a small computation on it; returns what its driver calls it.
    ///
    /// # Errors
    ///
    /// A driver that does not work, in its own words.
    pub fn check(&self) -> Result<String, String> {
        let ones = || Tensor::<1>::ones([1000], &self.device);
        let sum = quietly(|| ones().sum().into_scalar::<f32>())?;
        if sum as i32 != 1000 {
            return Err(format!("it says that a thousand ones add up to {sum}"));
        }
        quietly(|| name(&self.device))
    }

    /// Burn's device, without autodiff, once it passed its [`check`](Self::check).
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check).
    pub fn open(self) -> Result<Device, String> {
        self.check()?;
        Ok(self.device)
    }
}

/// The adapters that wgpu finds, in the order of their indices: those of the first graphics system
/// that has a GPU, of Vulkan, DirectX 12 and OpenGL; on macOS those of Metal.
///
/// # Errors
///
/// Why there are none.
#[cfg(feature = "wgpu")]
pub(super) fn wgpu_adapters() -> Result<Vec<Gpu>, String> {
    use burn::tensor::{DeviceKind, DeviceType};

    let found: Vec<Device> = quietly(|| Device::enumerate(DeviceType::Wgpu).into_iter().collect())?;
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
        return Err("no driver for Vulkan, DirectX 12, Metal or OpenGL offers an adapter".into());
    }
    Ok(found.iter().map(gpu).collect())
}

/// The adapter that wgpu itself would take: a fast one.
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

/// The NVIDIA GPUs, in the order of their indices.
///
/// # Errors
///
/// Why there are none.
#[cfg(feature = "cuda")]
pub(super) fn cuda_gpus() -> Result<Vec<Gpu>, String> {
    let found = quietly(|| Device::enumerate(burn::tensor::DeviceType::Cuda))?;
    if found.is_empty() {
        return Err("no NVIDIA driver (libcuda) was found, or it offers no GPU".into());
    }
    let gpu = |device| Gpu {
        device,
        kind: "NVIDIA GPU",
    };
    Ok(found.into_iter().map(gpu).collect())
}

/// This build has no wgpu.
///
/// # Errors
///
/// Always.
#[cfg(not(feature = "wgpu"))]
pub(super) fn wgpu_adapters() -> Result<Vec<Gpu>, String> {
    Err(not_built("wgpu"))
}

#[cfg(not(feature = "wgpu"))]
pub(super) fn wgpu_default() -> Result<Gpu, String> {
    Err(not_built("wgpu"))
}

/// This build has no CUDA.
///
/// # Errors
///
/// Always.
#[cfg(not(feature = "cuda"))]
pub(super) fn cuda_gpus() -> Result<Vec<Gpu>, String> {
    Err(not_built("cuda"))
}

#[cfg(not(all(feature = "cuda", feature = "wgpu")))]
fn not_built(feature: &str) -> String {
    format!(
        "this rgby was built without {feature}; `cargo build --release --features {feature}` \
         makes one that has it"
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

/// Runs `ask`; if it panics, that is returned instead of printed, whichever thread of Burn's it
/// starts in.
fn quietly<T>(ask: impl FnOnce() -> T) -> Result<T, String> {
    // What prints panics belongs to the whole process.
    static ASKING: Mutex<()> = Mutex::new(());
    let guard = ASKING.lock().unwrap_or_else(PoisonError::into_inner);
    let hook = take_hook();
    set_hook(Box::new(|_| {}));
    let answer = catch_unwind(AssertUnwindSafe(ask));
    set_hook(hook);
    drop(guard);
    answer.map_err(|panic| catch_panic::panic_message(&*panic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(quietly(|| 1), Ok(1));
        assert_eq!(
            quietly(|| panic!("no {}", "driver")),
            Err::<(), _>("no driver".into())
        );
        assert_eq!(quietly(|| panic!("none")), Err::<(), _>("none".into()));
    }

    #[test]
    fn a_device_that_computes_passes_its_check() {
        let gpu = Gpu {
            device: Device::flex(),
            kind: "processor",
        };
        assert!(gpu.check().is_ok());
        assert!(gpu.open().is_ok());
    }
}

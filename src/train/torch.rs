//! Training on libtorch: its devices and settings.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use super::TrainPrecision;
#[cfg(feature = "torch")]
use crate::model::fused::torch as library;

/// A device of libtorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TorchDevice {
    /// The CPU, all cores.
    Cpu,
    /// An NVIDIA GPU, by index.
    Cuda(usize),
    /// An Apple GPU.
    Mps,
}

impl FromStr for TorchDevice {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            Some(("cuda", index)) => index.parse().map(Self::Cuda).map_err(|_| ()),
            Some(_) => Err(()),
            None => match text {
                "cpu" => Ok(Self::Cpu),
                "cuda" => Ok(Self::Cuda(0)),
                "mps" => Ok(Self::Mps),
                _ => Err(()),
            },
        }
    }
}

impl fmt::Display for TorchDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Mps => f.write_str("mps"),
        }
    }
}

/// Returns the available devices, each with a description.
///
/// # Errors
///
/// Why there are none.
#[cfg(feature = "torch")]
pub(super) fn devices() -> Result<Vec<(TorchDevice, String)>, String> {
    let version = library::library_version()?;
    let mut found = vec![(TorchDevice::Cpu, format!("libtorch {version}, processor"))];
    let gpus = library::cuda_devices().unwrap_or(0);
    let gpu = |index| {
        (
            TorchDevice::Cuda(index),
            format!("libtorch {version}, NVIDIA GPU {index}"),
        )
    };
    found.extend((0..gpus).map(gpu));
    if library::mps_device().is_ok() {
        found.push((TorchDevice::Mps, format!("libtorch {version}, Apple GPU")));
    }
    Ok(found)
}

/// Returns Burn's device.
///
/// # Errors
///
/// Why it is not available.
#[cfg(feature = "torch")]
pub(super) fn device(device: TorchDevice) -> Result<Device, String> {
    library::library_version()?;
    match device {
        TorchDevice::Cpu => Ok(library::cpu_device()),
        TorchDevice::Cuda(index) => library::cuda_device(index),
        TorchDevice::Mps => library::mps_device(),
    }
}

/// Stub for a build without libtorch; always an error.
#[cfg(not(feature = "torch"))]
pub(super) fn devices() -> Result<Vec<(TorchDevice, String)>, String> {
    Err(super::gpu::not_built("torch"))
}

/// Stub for a build without libtorch; always an error.
#[cfg(not(feature = "torch"))]
pub(super) fn device(_device: TorchDevice) -> Result<Device, String> {
    Err(super::gpu::not_built("torch"))
}

/// Returns the device of `--device torch`: the first of CUDA, Metal and the CPU.
///
/// # Errors
///
/// Why there is none.
pub(super) fn best() -> Result<TorchDevice, String> {
    let found = devices()?;
    let is_gpu = |device: &&(TorchDevice, String)| device.0 != TorchDevice::Cpu;
    Ok(found
        .iter()
        .find(is_gpu)
        .map_or(TorchDevice::Cpu, |(device, _)| *device))
}

/// Applies `train.precision` and `train.deterministic` to the process.
///
/// # Errors
///
/// The device does not support the precision.
pub(super) fn configure(
    device: &Device,
    precision: TrainPrecision,
    deterministic: bool,
) -> Result<(), String> {
    #[cfg(feature = "torch")]
    if library::is_torch(device) {
        let precision = match precision {
            TrainPrecision::Tf32 => library::TorchPrecision::Tf32,
            TrainPrecision::Fp32 => library::TorchPrecision::Fp32,
            TrainPrecision::Bf16 => library::TorchPrecision::Bf16,
        };
        library::configure(precision, deterministic, rayon::current_num_threads());
        return Ok(());
    }
    // Burn's other backends always compute deterministically.
    let _ = deterministic;
    precision.check_without_torch(device)
}

//! Devices for training.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use super::gpu::{self, Gpu};
use super::torch::{self, TorchDevice};
use crate::score;

/// `--device` of the training commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrainDevice {
    /// The CPU, all cores.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by index.
    Cuda(usize),
    /// A GPU with a Vulkan, Metal or DirectX 12 driver, by its index in `rgby devices`; without an
    /// index, the system's default.
    Wgpu(Option<usize>),
    /// libtorch; without a device, the first that is available of CUDA, Metal and the CPU.
    Torch(Option<TorchDevice>),
}

impl TrainDevice {
    /// Returns the device that [`open`](Self::open) opens: for `torch`, the one that it selects.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn resolved(self) -> Result<Self, String> {
        match self {
            Self::Torch(None) => torch::best()
                .map(|device| Self::Torch(Some(device)))
                .map_err(|reason| self.not_available(&reason)),
            known => Ok(known),
        }
    }

    fn not_available(self, reason: &str) -> String {
        let available: Vec<String> = DetectedDevice::all()
            .iter()
            .map(ToString::to_string)
            .collect();
        format!(
            "--device {self} is not available: {reason}\nhint: available devices: {}",
            available.join(", ")
        )
    }

    /// Returns the device of ONNX Runtime that is the same hardware; `None` if ONNX Runtime has no
    /// execution provider for it.
    #[must_use]
    pub fn session_device(self) -> Option<score::Device> {
        match self {
            Self::Cpu | Self::Torch(Some(TorchDevice::Cpu)) => Some(score::Device::Cpu),
            Self::Cuda(index) | Self::Torch(Some(TorchDevice::Cuda(index))) => {
                u32::try_from(index).ok().map(score::Device::Cuda)
            }
            Self::Wgpu(_) | Self::Torch(None | Some(TorchDevice::Mps)) => None,
        }
    }

    /// Returns Burn's device, without autodiff, after a small test computation on it.
    ///
    /// # Errors
    ///
    /// Why the device is not available, and which devices are.
    pub fn open(self) -> Result<Device, String> {
        let numbered = |gpus: Result<Vec<Gpu>, String>, index: usize| {
            let gpu = gpus?.into_iter().nth(index);
            gpu.ok_or_else(|| "no device has this index".to_owned())
        };
        let gpu = match self {
            Self::Cpu => return Ok(Device::flex()),
            Self::Cuda(index) => numbered(gpu::cuda_gpus(), index),
            Self::Wgpu(None) => gpu::wgpu_default(),
            Self::Wgpu(Some(index)) => numbered(gpu::wgpu_adapters(), index),
            Self::Torch(device) => device
                .map_or_else(torch::best, Ok)
                .and_then(torch::device)
                .map(|device| Gpu::new(device, "libtorch")),
        };
        gpu.and_then(Gpu::open)
            .map_err(|reason| self.not_available(&reason))
    }
}

impl FromStr for TrainDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || {
            format!(
                "`{text}` is not a device; use cpu, cuda, cuda:1, wgpu, wgpu:1, torch, torch:cpu, \
                 torch:cuda, torch:cuda:1 or torch:mps"
            )
        };
        if let Some(rest) = text.strip_prefix("torch") {
            let device = rest.strip_prefix(':').map(str::parse).transpose();
            return match device {
                Ok(None) if !rest.is_empty() => Err(invalid()),
                Ok(device) => Ok(Self::Torch(device)),
                Err(()) => Err(invalid()),
            };
        }
        let (kind, index) = match text.split_once(':') {
            Some((kind, index)) => (kind, Some(index.parse().map_err(|_| invalid())?)),
            None => (text, None),
        };
        match (kind, index) {
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", index) => Ok(Self::Cuda(index.unwrap_or(0))),
            ("wgpu", index) => Ok(Self::Wgpu(index)),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for TrainDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu(None) => f.write_str("wgpu"),
            Self::Wgpu(Some(index)) => write!(f, "wgpu:{index}"),
            Self::Torch(None) => f.write_str("torch"),
            Self::Torch(Some(device)) => write!(f, "torch:{device}"),
        }
    }
}

/// A device that training can use on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectedDevice {
    /// Value for `--device`.
    pub device: TrainDevice,
    /// The driver's name for it, or why it does not work.
    pub name: Result<String, String>,
    /// For example `processor` or `discrete GPU`.
    pub kind: &'static str,
}

impl DetectedDevice {
    /// Returns all devices that this build can use, in the order of their indices.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let cpu = Self {
            device: TrainDevice::Cpu,
            name: Ok(processor()),
            kind: "processor",
        };
        let gpus = |gpus: Result<Vec<Gpu>, String>, device: fn(usize) -> TrainDevice| {
            let numbered = gpus.unwrap_or_default().into_iter().enumerate();
            numbered.map(move |(index, gpu)| Self {
                device: device(index),
                name: gpu.check(),
                kind: gpu.kind(),
            })
        };
        let wgpu = gpus(gpu::wgpu_adapters(), |index| TrainDevice::Wgpu(Some(index)));
        let cuda = gpus(gpu::cuda_gpus(), TrainDevice::Cuda);
        let torch = torch::devices().unwrap_or_default();
        let torch = torch.into_iter().map(|(device, name)| Self {
            device: TrainDevice::Torch(Some(device)),
            name: torch::device(device).and_then(|device| {
                Gpu::new(device, "libtorch").open()?;
                Ok(name)
            }),
            kind: "libtorch",
        });
        let others = wgpu.chain(cuda).chain(torch);
        std::iter::once(cpu).chain(others).collect()
    }

    /// Returns the kinds of devices that are not available, each with the reason.
    #[must_use]
    pub fn missing() -> Vec<(&'static str, String)> {
        let kinds = [
            ("wgpu", gpu::wgpu_adapters().err()),
            ("cuda", gpu::cuda_gpus().err()),
            ("torch", torch::devices().err()),
        ];
        let missing = |(kind, reason): (_, Option<String>)| Some((kind, reason?));
        kinds.into_iter().filter_map(missing).collect()
    }
}

impl fmt::Display for DetectedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind;
        match &self.name {
            Ok(name) => write!(f, "{} ({name}, {kind})", self.device),
            Err(reason) => write!(f, "{} ({kind}, not working: {reason})", self.device),
        }
    }
}

/// Returns the number of cores and the widest vector instructions.
fn processor() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plural = if cores == 1 { "" } else { "s" };
    format!("{cores} core{plural}, {}", vector_instructions())
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn vector_instructions() -> &'static str {
    if is_x86_feature_detected!("avx512f") {
        "AVX-512"
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        "AVX2 and FMA"
    } else if is_x86_feature_detected!("avx2") {
        "AVX2"
    } else {
        "SSE2"
    }
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
fn vector_instructions() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "NEON"
    } else {
        "no vector instructions known"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints_devices() {
        for text in [
            "cpu",
            "cuda:0",
            "cuda:3",
            "wgpu",
            "wgpu:1",
            "torch",
            "torch:cpu",
            "torch:cuda:0",
            "torch:cuda:2",
            "torch:mps",
        ] {
            assert_eq!(
                text.parse::<TrainDevice>().map(|d| d.to_string()),
                Ok(text.into())
            );
        }
        assert_eq!("cuda".parse(), Ok(TrainDevice::Cuda(0)));
        assert_eq!(
            "torch:cuda".parse(),
            Ok(TrainDevice::Torch(Some(TorchDevice::Cuda(0))))
        );
        for text in [
            "",
            "gpu",
            "cpu:0",
            "cuda:",
            "cuda:-1",
            "wgpu:x",
            "torch:",
            "torchcpu",
            "torch:wgpu",
            "torch:cpu:0",
            "torch:cuda:x",
        ] {
            assert!(text.parse::<TrainDevice>().is_err(), "{text}");
        }
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "wgpu", feature = "torch")))]
    fn error_for_a_device_that_is_not_built_in_lists_available_devices() {
        for (device, feature) in [
            (TrainDevice::Cuda(0), "cuda"),
            (TrainDevice::Wgpu(None), "wgpu"),
            (TrainDevice::Wgpu(Some(3)), "wgpu"),
            (TrainDevice::Torch(None), "torch"),
            (TrainDevice::Torch(Some(TorchDevice::Mps)), "torch"),
        ] {
            let message = device.open().unwrap_err();
            for part in [
                &*format!("--features {feature}"),
                "available devices: cpu (",
                " core",
            ] {
                assert!(message.contains(part), "no {part} in {message}");
            }
        }
        let missing = DetectedDevice::missing();
        assert_eq!(missing.len(), 3, "{missing:?}");
    }

    #[test]
    #[cfg(feature = "wgpu")]
    fn error_for_an_index_out_of_range_lists_available_devices() {
        let message = TrainDevice::Wgpu(Some(1000)).open().unwrap_err();
        assert!(message.contains("wgpu:1000"), "{message}");
        for found in DetectedDevice::all() {
            assert!(
                message.contains(&found.to_string()),
                "no {found} in {message}"
            );
        }
    }

    #[test]
    fn session_device_is_the_same_hardware() {
        for (device, expected) in [
            ("cpu", Some(score::Device::Cpu)),
            ("cuda", Some(score::Device::Cuda(0))),
            ("cuda:3", Some(score::Device::Cuda(3))),
            ("wgpu", None),
            ("wgpu:0", None),
            ("torch:cpu", Some(score::Device::Cpu)),
            ("torch:cuda:1", Some(score::Device::Cuda(1))),
            ("torch:mps", None),
        ] {
            let device: TrainDevice = device.parse().unwrap();
            assert_eq!(device.session_device(), expected, "{device}");
        }
    }

    #[test]
    fn cpu_is_always_available() {
        let all = DetectedDevice::all();
        assert_eq!(all[0].device, TrainDevice::Cpu);
        assert!(TrainDevice::Cpu.open().is_ok());
    }
}

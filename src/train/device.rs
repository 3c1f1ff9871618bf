//! Where training runs.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

/// `--device` of the training commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TrainDevice {
    /// All cores of the processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU, by index.
    Cuda(usize),
    /// Any GPU with a Vulkan, Metal or DirectX 12 driver, by index.
    Wgpu(usize),
}

impl TrainDevice {
    /// Burn's device, without autodiff.
    ///
    /// # Errors
    ///
    /// A sentence, if this build has no such device.
    pub fn open(self) -> Result<Device, String> {
        match self {
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Device::cuda(index)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(index) => Ok(Device::webgpu(burn::tensor::DeviceKind::DiscreteGpu(index))),
            #[cfg(not(all(feature = "cuda", feature = "wgpu")))]
            _ => {
                let feature = if matches!(self, Self::Cuda(_)) {
                    "cuda"
                } else {
                    "wgpu"
                };
                Err(format!(
                    "this rgby was built without {feature}: build it with `cargo build --release \
                     --features {feature}`, or use --device cpu"
                ))
            }
        }
    }
}

impl FromStr for TrainDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, index) = match text.split_once(':') {
            Some((kind, index)) => (kind, index.parse().ok()),
            None => (text, Some(0)),
        };
        match (kind, index) {
            ("cpu", _) if kind == text => Ok(Self::Cpu),
            ("cuda", Some(index)) => Ok(Self::Cuda(index)),
            ("wgpu", Some(index)) => Ok(Self::Wgpu(index)),
            _ => Err(format!(
                "`{text}` is not a device; use cpu, cuda, cuda:1, wgpu or wgpu:1"
            )),
        }
    }
}

impl fmt::Display for TrainDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
        }
    }
}

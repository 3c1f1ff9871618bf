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
    /// A GPU with a Vulkan, Metal or DirectX 12 driver: the system's first choice, or the discrete
    /// one of that index.
    Wgpu(Option<usize>),
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
            Self::Wgpu(index) => {
                use burn::tensor::DeviceKind;
                let kind = index.map_or(DeviceKind::DefaultDevice, DeviceKind::DiscreteGpu);
                Ok(Device::wgpu(kind))
            }
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
        let wrong = || format!("`{text}` is not a device; use cpu, cuda, cuda:1, wgpu or wgpu:1");
        let (kind, index) = match text.split_once(':') {
            Some((kind, index)) => (kind, Some(index.parse().map_err(|_| wrong())?)),
            None => (text, None),
        };
        match (kind, index) {
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", index) => Ok(Self::Cuda(index.unwrap_or(0))),
            ("wgpu", index) => Ok(Self::Wgpu(index)),
            _ => Err(wrong()),
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse_and_print() {
        for text in ["cpu", "cuda:0", "cuda:3", "wgpu", "wgpu:1"] {
            assert_eq!(
                text.parse::<TrainDevice>().map(|d| d.to_string()),
                Ok(text.into())
            );
        }
        assert_eq!("cuda".parse(), Ok(TrainDevice::Cuda(0)));
        for text in ["", "gpu", "cpu:0", "cuda:", "cuda:-1", "wgpu:x"] {
            assert!(text.parse::<TrainDevice>().is_err(), "{text}");
        }
    }

    #[test]
    #[cfg(not(any(feature = "cuda", feature = "wgpu")))]
    fn a_device_that_was_not_built_in_is_an_error() {
        for (device, feature) in [
            (TrainDevice::Cuda(0), "cuda"),
            (TrainDevice::Wgpu(None), "wgpu"),
        ] {
            let message = device.open().unwrap_err();
            assert!(
                message.contains(&format!("--features {feature}")),
                "{message}"
            );
        }
    }
}

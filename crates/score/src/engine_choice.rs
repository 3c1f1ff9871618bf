//! Selection of engine, device and library.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The engine that runs the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EngineChoice {
    /// ONNX Runtime if it is found, else tract if the device is the CPU.
    #[default]
    Auto,
    OnnxRuntime,
    /// The embedded engine.
    Tract,
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::OnnxRuntime => "onnxruntime",
            Self::Tract => "tract",
        })
    }
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "onnxruntime" => Ok(Self::OnnxRuntime),
            "tract" => Ok(Self::Tract),
            _ => Err(format!(
                "`{text}` is not an engine; use auto, onnxruntime or tract"
            )),
        }
    }
}

/// The device that runs the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Device {
    #[default]
    Cpu,
    /// An NVIDIA GPU, by its index.
    Cuda(u32),
    /// An NVIDIA GPU through `TensorRT`, by its index.
    TensorRt(u32),
}

impl Device {
    /// Returns `cpu`, `cuda` or `tensorrt`.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda(_) => "cuda",
            Self::TensorRt(_) => "tensorrt",
        }
    }

    /// Returns the index of the GPU, or `None` for the CPU.
    #[must_use]
    pub fn gpu(self) -> Option<u32> {
        match self {
            Self::Cpu => None,
            Self::Cuda(index) | Self::TensorRt(index) => Some(index),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::TensorRt(index) => write!(f, "tensorrt:{index}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, index) = match text.split_once(':') {
            // ONNX Runtime takes a signed index.
            Some((kind, index)) => (
                kind,
                index.parse().ok().filter(|i| i32::try_from(*i).is_ok()),
            ),
            None => (text, Some(0)),
        };
        match (kind, index) {
            ("cpu", _) if text == "cpu" => Ok(Self::Cpu),
            ("cuda", Some(index)) => Ok(Self::Cuda(index)),
            ("tensorrt", Some(index)) => Ok(Self::TensorRt(index)),
            _ => Err(format!(
                "`{text}` is not a device; use cpu, cuda, cuda:1, tensorrt or tensorrt:1"
            )),
        }
    }
}

/// One device, or several of the same kind that run in parallel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices(Vec<Device>);

impl Devices {
    /// Returns the devices; at least one.
    #[must_use]
    pub fn all(&self) -> &[Device] {
        &self.0
    }
}

impl Default for Devices {
    fn default() -> Self {
        Self(vec![Device::default()])
    }
}

impl From<Device> for Devices {
    fn from(device: Device) -> Self {
        Self(vec![device])
    }
}

impl fmt::Display for Devices {
    /// As it is parsed: `cuda:0,1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0[0])?;
        for device in &self.0[1..] {
            if let Device::Cuda(index) | Device::TensorRt(index) = device {
                write!(f, ",{index}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((kind, indexes)) = text.split_once(':') else {
            return Ok(Self(vec![text.parse()?]));
        };
        let mut devices: Vec<Device> = Vec::new();
        for index in indexes.split(',') {
            let device = format!("{kind}:{index}").parse();
            let device = device.map_err(|e: String| format!("{e}, or several: cuda:0,1"))?;
            if devices.contains(&device) {
                return Err(format!("`{text}` names {device} twice; name it once"));
            }
            devices.push(device);
        }
        Ok(Self(devices))
    }
}

/// What was asked for on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// `--engine`.
    pub engine: EngineChoice,
    /// `--device`.
    pub device: Device,
    /// `--ort-lib`.
    pub ort_lib: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse_and_print() {
        for (text, device) in [
            ("cpu", Device::Cpu),
            ("cuda", Device::Cuda(0)),
            ("cuda:3", Device::Cuda(3)),
            ("tensorrt", Device::TensorRt(0)),
            ("tensorrt:1", Device::TensorRt(1)),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for text in [
            "",
            "gpu",
            "cpu:0",
            "cuda:",
            "cuda:-1",
            "cuda:x",
            "cuda:4294967295",
            "CUDA",
        ] {
            let error = text.parse::<Device>().unwrap_err();
            assert!(error.contains("use cpu"), "{text}: {error}");
        }
    }

    #[test]
    fn several_devices_parse_and_print() {
        for (text, devices) in [
            ("cpu", vec![Device::Cpu]),
            ("cuda", vec![Device::Cuda(0)]),
            ("cuda:0,1", vec![Device::Cuda(0), Device::Cuda(1)]),
            (
                "tensorrt:3,1",
                vec![Device::TensorRt(3), Device::TensorRt(1)],
            ),
        ] {
            let parsed: Devices = text.parse().unwrap();
            assert_eq!(parsed.all(), devices);
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        for (text, wanted) in [
            ("cpu,cuda", "`cpu,cuda` is no device"),
            ("cpu:0,1", "use cpu"),
            ("cuda:0,", "`cuda:` is no device"),
            ("cuda:,1", "or several: cuda:0,1"),
            ("cuda:0,cuda:1", "`cuda:cuda:1` is no device"),
            ("cuda:1,0,1", "names cuda:1 twice"),
            ("", "use cpu"),
        ] {
            let error = text.parse::<Devices>().unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn engines_parse_and_print() {
        for engine in [
            EngineChoice::Auto,
            EngineChoice::OnnxRuntime,
            EngineChoice::Tract,
        ] {
            assert_eq!(engine.to_string().parse(), Ok(engine));
        }
        assert!(
            "onnx"
                .parse::<EngineChoice>()
                .unwrap_err()
                .contains("onnxruntime")
        );
    }
}

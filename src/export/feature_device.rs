//! Selects where the features of a frozen backbone are computed.

use std::fmt;
use std::str::FromStr;

use super::ExportError;
use super::features::sessions;
use crate::model::Classifier;
use crate::score::{Device, EngineChoice, EngineError, Runtime, RuntimeOptions};
use crate::train::{Config, FeatureBackend, SelectFeatureBackend, TrainDevice};

/// `--feature-device` of the training commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FeatureDevice {
    /// ONNX Runtime on the hardware of the training device if available, else Burn.
    #[default]
    Auto,
    /// ONNX Runtime on this device.
    OnnxRuntime(Device),
    /// Burn on the training device.
    Burn,
}

impl FeatureDevice {
    /// Returns a function that selects the implementation for a training on `training`.
    ///
    /// The embedded tract is not faster than Burn, so it is not used here.
    #[must_use]
    pub fn backend(self, training: TrainDevice) -> Box<SelectFeatureBackend> {
        Box::new(move |classifier, config| self.select(training, classifier, config))
    }

    fn select(
        self,
        training: TrainDevice,
        classifier: &Classifier,
        config: &Config,
    ) -> Result<FeatureBackend, String> {
        let device = match self {
            Self::Burn => return Ok(FeatureBackend::Burn { reason: None }),
            Self::OnnxRuntime(device) => device,
            Self::Auto => match training.session_device() {
                Some(device) => device,
                None => return Ok(burn(format!("ONNX Runtime does not support {training}"))),
            },
        };
        match start(classifier, config, device) {
            Ok(backend) => Ok(backend),
            Err(ExportError::Engine(error)) if self == Self::Auto && unavailable(&error) => {
                Ok(burn(error.to_string()))
            }
            Err(error) if self == Self::Auto => Err(format!(
                "{error}\nhint: `--feature-device burn` computes the features without ONNX Runtime"
            )),
            Err(error) => Err(format!("--feature-device {self}: {error}")),
        }
    }
}

fn burn(reason: String) -> FeatureBackend {
    FeatureBackend::Burn {
        reason: Some(reason),
    }
}

fn start(
    classifier: &Classifier,
    config: &Config,
    device: Device,
) -> Result<FeatureBackend, ExportError> {
    let runtime = Runtime::start(&RuntimeOptions {
        engine: EngineChoice::OnnxRuntime,
        device,
        ..RuntimeOptions::default()
    })?;
    Ok(FeatureBackend::Sessions(sessions(
        classifier, config, runtime,
    )?))
}

/// Returns whether the error means that this machine or this process does not offer the device.
fn unavailable(error: &EngineError) -> bool {
    matches!(
        error,
        EngineError::NoRuntime { .. }
            | EngineError::Device { .. }
            | EngineError::AlreadyStarted { .. }
    )
}

impl fmt::Display for FeatureDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::OnnxRuntime(device) => device.fmt(f),
            Self::Burn => f.write_str("burn"),
        }
    }
}

impl FromStr for FeatureDevice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            ("burn", _) => Ok(Self::Burn),
            (_, Ok(device @ (Device::Cpu | Device::Cuda(_)))) => Ok(Self::OnnxRuntime(device)),
            _ => Err(format!(
                "`{text}` is not a device for features; use auto, cpu, cuda, cuda:1 or burn"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Arch, ModelConfig};

    fn network() -> (Classifier, Config) {
        let text = "[model]\narch = \"baseline\"\ninput_size = 32\n[train]\nepochs = 1\n\
                    batch_size = 4\n[optimizer]\nname = \"adam\"\n";
        let config = Config::parse("test", text, &[]).unwrap();
        let model = ModelConfig::new(Arch::Baseline, 32).resolved().unwrap();
        let device = burn::tensor::Device::flex();
        (Classifier::new(&model, 0, &device), config)
    }

    #[test]
    fn parses_and_prints_devices() {
        for text in ["auto", "burn", "cpu", "cuda:0", "cuda:2"] {
            let device: FeatureDevice = text.parse().unwrap();
            assert_eq!(device.to_string(), text);
        }
        for text in ["", "gpu", "wgpu", "tensorrt", "cuda:", "burn:0"] {
            assert!(text.parse::<FeatureDevice>().is_err(), "{text}");
        }
    }

    #[test]
    fn auto_uses_burn_and_states_the_reason_if_the_device_is_not_available() {
        let (classifier, config) = network();
        // No machine has a GPU of this index.
        for training in [TrainDevice::Cuda(97), TrainDevice::Wgpu(None)] {
            let select = FeatureDevice::Auto.backend(training);
            let Ok(FeatureBackend::Burn { reason }) = select(&classifier, &config) else {
                panic!("{training} did not select Burn");
            };
            let reason = reason.expect("a fallback has a reason");
            assert!(reason.contains(&training.to_string()), "{reason}");
        }
    }

    #[test]
    fn burn_is_used_without_a_reason_if_it_was_asked_for() {
        let (classifier, config) = network();
        let select = FeatureDevice::Burn.backend(TrainDevice::Cpu);
        let backend = select(&classifier, &config).unwrap();
        assert!(matches!(backend, FeatureBackend::Burn { reason: None }));
    }

    #[test]
    fn requested_device_that_is_not_available_is_an_error() {
        let (classifier, config) = network();
        let device: FeatureDevice = "cuda:97".parse().unwrap();
        let error = device.backend(TrainDevice::Cpu)(&classifier, &config);
        let error = error.err().expect("no machine has this GPU");
        assert!(error.starts_with("--feature-device cuda:97: "), "{error}");
    }
}

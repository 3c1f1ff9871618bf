//! `train.precision`: the number format of training.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::gpu::is_cuda;

/// The type of weights, activations and gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainPrecision {
    /// float32. GPUs may multiply in TensorFloat-32, as PyTorch does in convolutions.
    #[default]
    Tf32,
    /// float32 throughout.
    Fp32,
    /// Convolutions and what follows them in bfloat16; weights, their gradients and the head in
    /// float32. Only on libtorch.
    Bf16,
}

impl TrainPrecision {
    /// Checks that a device of Burn's own backends supports this precision.
    pub(super) fn check_without_torch(self, device: &Device) -> Result<(), String> {
        match self {
            Self::Fp32 if is_cuda(device) => Err(
                "train.precision is fp32, but Burn's kernels multiply in TensorFloat-32 on `cuda`\n\
                 hint: use tf32, or fp32 with --device torch (see docs/devices.md)"
                    .into(),
            ),
            Self::Tf32 | Self::Fp32 => Ok(()),
            Self::Bf16 => Err(
                "train.precision is bf16, which only --device torch supports: bf16 is slow on \
                 `cpu`, WGSL (wgpu) has no such type, and it was never tested on `cuda`\n\
                 hint: use tf32 or fp32 (see docs/devices.md)"
                    .into(),
            ),
        }
    }
}

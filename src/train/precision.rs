//! `train.precision`: the number format of training.

use serde::{Deserialize, Serialize};

/// The type of weights, activations and gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainPrecision {
    /// float32 throughout.
    #[default]
    Fp32,
    /// bfloat16 in convolutions and matrix products, float32 elsewhere. Not implemented; the name
    /// is accepted so that the error can explain why.
    Bf16,
}

impl TrainPrecision {
    /// Checks that training supports this precision.
    pub(super) fn check(self) -> Result<(), String> {
        match self {
            Self::Fp32 => Ok(()),
            Self::Bf16 => Err(
                "train.precision is bf16, which training does not support: bf16 is slow on the \
                 CPU, WGSL (wgpu) has no such type, and it was never tested on CUDA\n\
                 hint: use fp32 (see docs/devices.md)"
                    .into(),
            ),
        }
    }
}

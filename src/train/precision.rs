//! `train.precision`: the numbers that training computes with.

use serde::{Deserialize, Serialize};

/// The type of weights, activations and gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainPrecision {
    /// float32 throughout.
    #[default]
    Fp32,
    /// bfloat16 in convolutions and matrix products, float32 elsewhere. Not offered yet; the name
    /// is known so that a config that asks for it is told why.
    Bf16,
}

impl TrainPrecision {
    /// Checks that training can keep to it.
    pub(super) fn check(self) -> Result<(), String> {
        match self {
            Self::Fp32 => Ok(()),
            Self::Bf16 => Err(
                "train.precision is bf16, in which this version cannot train: the CPU has no fast \
                 arithmetic for it here, wgpu's shading language has no such type, and on CUDA it \
                 was never tested; use fp32 (see docs/devices.md)"
                    .into(),
            ),
        }
    }
}

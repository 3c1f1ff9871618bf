//! Replacement for a pretrained file: the skeleton's graph with random weights.
//!
//! ImageNet weights cannot be shipped with the source. The demo and the tests convert this file
//! instead, which has the structure of a real export.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::weights::imported;
use super::{Arch, WeightsError};
use crate::graph::{ModelProto, TensorProto, read_bytes, surgery::fill_weights};

/// Creates a three-channel ONNX export of `arch` with its classifier and weights drawn from `seed`.
///
/// Convolutions are He-uniform (He et al. 2015). BatchNorm's scale is 0.5–1.5. Its statistics are
/// near mean 0 and variance 1 but not equal, so that tests detect a misplaced tensor.
///
/// # Errors
///
/// [`WeightsError::NoSkeleton`] for a network that was not imported.
pub fn random_export(arch: Arch, seed: u64) -> Result<ModelProto, WeightsError> {
    let mut model = read_bytes(imported(arch)?.skeleton)?;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    fill_weights(model.graph.mut_or_insert_default(), |op, input, tensor| {
        let (low, high) = range(op, input, tensor);
        let count = tensor.dims.iter().product::<i64>() as usize;
        (0..count).map(|_| rng.random_range(low..high)).collect()
    });
    Ok(model)
}

fn range(op: &str, input: usize, tensor: &TensorProto) -> (f32, f32) {
    match (op, input) {
        ("BatchNormalization", 1 | 4) => (0.5, 1.5),
        ("BatchNormalization", _) => (-0.2, 0.2),
        _ if tensor.dims.len() > 1 => {
            let fan_in: i64 = tensor.dims[1..].iter().product();
            let bound = (6.0 / fan_in as f32).sqrt();
            (-bound, bound)
        }
        _ => (-0.05, 0.05),
    }
}

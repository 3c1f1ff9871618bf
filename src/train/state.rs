//! An optimizer's state as bytes.

use burn::optim::ModuleOptimizer;
use burn::tensor::Bytes;
use burn_store::burn_pack::{Reader, Writer};

/// The state of `optimizer`, the same bytes for the same state.
///
/// Burn writes the tensors in the order of a hash map, which differs from process to process; here
/// they are put in the order of their names. [`ModuleOptimizer::from_bytes`] reads either.
///
/// # Errors
///
/// The state cannot be written: the reason, as Burn has it.
pub(super) fn optimizer_bytes(optimizer: &ModuleOptimizer) -> Result<Bytes, String> {
    let bytes = optimizer.into_bytes().map_err(|error| error.to_string())?;
    sorted(bytes).map_err(|error| error.to_string())
}

fn sorted(bytes: Bytes) -> Result<Bytes, burn_store::burn_pack::Error> {
    let reader = Reader::from_bytes(bytes)?;
    let (scalars, metadata) = (reader.scalars().clone(), reader.metadata().clone());
    let mut tensors = reader.into_tensors()?;
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut writer = Writer::new(tensors);
    for (key, value) in scalars {
        writer = writer.with_scalar(&key, value);
    }
    for (key, value) in &metadata {
        writer = writer.with_metadata(key, value);
    }
    writer.into_bytes()
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::{AdamConfig, GradientsParams};
    use burn::tensor::{Device, Tensor};

    use super::*;

    /// Burn's map has another order each time; ten of them are not all sorted by chance.
    #[test]
    fn the_same_state_is_the_same_bytes_and_is_read_back() {
        let device = Device::flex().autodiff();
        let layers: Vec<Linear> = (0..10)
            .map(|_| LinearConfig::new(2, 2).init(&device))
            .collect();
        let input = Tensor::<2>::ones([1, 2], &device);
        let states: Vec<Bytes> = (0..4)
            .map(|_| {
                let output = layers
                    .iter()
                    .fold(input.clone(), |x, layer| layer.forward(x));
                let gradients = GradientsParams::from_grads(output.sum().backward(), &layers);
                let mut optimizer = AdamConfig::new().init();
                optimizer.step(0.1, layers.clone(), gradients);
                let bytes = optimizer_bytes(&optimizer).unwrap();
                let read = AdamConfig::new().init().from_bytes(bytes.clone()).unwrap();
                assert_eq!(*optimizer_bytes(&read).unwrap(), *bytes);
                bytes
            })
            .collect();
        assert_eq!(layers.num_params(), 60);
        assert!(states.iter().all(|state| **state == *states[0]));
    }
}

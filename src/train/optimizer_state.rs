//! Serialization of an optimizer's state.

use burn::optim::ModuleOptimizer;
use burn::tensor::Bytes;
use burn_store::burn_pack::{Reader, Writer};

/// Serializes the state of `optimizer`; equal states give equal bytes.
///
/// Burn writes tensors in the order of a hash map, which differs between processes. This function
/// sorts them by name. [`ModuleOptimizer::from_bytes`] reads both orders.
///
/// # Errors
///
/// Burn's reason why the state cannot be serialized.
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

    /// Burn's map has a different order each time; with ten layers it is never sorted by chance.
    #[test]
    fn equal_states_serialize_to_equal_bytes_and_load_again() {
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

//! Fuzzes the steps of a conversion before Burn: reading, normalizing, weight transfer.
//!
//! Nothing may panic, hang or need more memory than a small multiple of the input.

#![no_main]

mod mutate;

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rgby_graph::network::Network;
use rgby_graph::weight_transfer::transfer_weights;
use rgby_graph::{GraphError, ModelProto, check, matching, patches, read_bytes};

/// The network that inputs are matched with; the seeds are exports of it.
static SKELETON: LazyLock<ModelProto> = LazyLock::new(|| {
    let bytes = include_bytes!("../../tests/exports/small/skeleton.onnx");
    let mut model = read_bytes(bytes).expect("the skeleton is a model");
    let graph = model.graph.mut_or_insert_default();
    patches::normalize(graph).expect("the skeleton is a network");
    model
});

fuzz_target!(|bytes: &[u8]| {
    // Most inputs are refused; the reason is irrelevant here.
    let _ = convert(bytes);
});

// Half of the inputs are mutated as bytes, which tests the reader; half as graphs, which tests the
// following steps.
fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let changed = (seed % 2 == 0)
        .then(|| mutate::graph(&data[..size], u64::from(seed)))
        .flatten()
        .filter(|changed| changed.len() <= max_size);
    match changed {
        Some(changed) => {
            data[..changed.len()].copy_from_slice(&changed);
            changed.len()
        }
        None => fuzzer_mutate(data, size, max_size),
    }
});

fn convert(bytes: &[u8]) -> Result<(), GraphError> {
    let mut model = read_bytes(bytes)?;
    check::check_weights(&model.graph)?;
    let graph = model.graph.mut_or_insert_default();
    patches::normalize(graph)?;
    let source = Network::new(graph)?;
    let skeleton = Network::new(&SKELETON.graph)?;
    let _ = source.features();
    let _ = matching::likeness(&source, &skeleton);
    for weight in transfer_weights(&source, &skeleton)?.weights.values() {
        let (shape, values) = weight.read()?;
        assert_eq!(shape.iter().product::<usize>(), values.len());
    }
    Ok(())
}

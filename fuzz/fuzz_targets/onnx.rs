//! Any bytes through all that a conversion does with an ONNX file before Burn sees it.
//!
//! Nothing may panic, hang or take more memory than a small multiple of the input.

#![no_main]

// Included, so that fuzzing builds neither Burn nor the rest of rgby.
#[path = "../../src/graph/mod.rs"]
#[allow(dead_code, unused_imports)]
mod graph;
mod mutate;

use std::sync::LazyLock;

use graph::adoption::adopt;
use graph::network::Network;
use graph::{GraphError, ModelProto, check, matching, patches};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

/// What inputs are matched with: the network of which the seeds are exports.
static SKELETON: LazyLock<ModelProto> = LazyLock::new(|| {
    let bytes = include_bytes!("../../tests/exports/small/skeleton.onnx");
    let mut model = graph::read_bytes(bytes).expect("the skeleton is a model");
    let graph = model.graph.mut_or_insert_default();
    patches::normalise(graph).expect("the skeleton is a network");
    model
});

fuzz_target!(|bytes: &[u8]| {
    // Most inputs are refused; how is of no interest here.
    let _ = convert(bytes);
});

// Half of the inputs are changed as bytes, which tests the reader, half as graphs, which tests
// what comes after it.
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
    let mut model = graph::read_bytes(bytes)?;
    check::check_weights(&model.graph)?;
    let graph = model.graph.mut_or_insert_default();
    patches::normalise(graph)?;
    let source = Network::new(graph)?;
    let skeleton = Network::new(&SKELETON.graph)?;
    let _ = source.features();
    let _ = matching::likeness(&source, &skeleton);
    for weight in adopt(&source, &skeleton)?.weights.values() {
        let (shape, values) = weight.read()?;
        assert_eq!(shape.iter().product::<usize>(), values.len());
    }
    Ok(())
}

//! Fuzzes inference requests: JSON with or without binary tensors, and gRPC messages.
//!
//! Nothing may panic, and an accepted request has as many values as its shape.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rgby_imaging::Preprocess;
use rgby_score::model_metadata::{ModelSpec, Precision, Provenance};
use rgby_serve::{InferenceInput, Pixels, ServeError, grpc, rest};

static SPEC: LazyLock<ModelSpec> = LazyLock::new(|| ModelSpec {
    arch: "tiny".into(),
    classes: vec!["a".into(), "b".into()],
    thresholds: vec![0.5; 2],
    preprocess: Preprocess::new(&["red", "green"], 2),
    provenance: Provenance::default(),
    precision: Precision::Fp32,
    embeddings: Some(3),
});

// The first byte selects the protocol. For JSON with binary tensors, the next two are the length of
// the JSON.
fuzz_target!(|bytes: &[u8]| {
    let input = match bytes {
        [b'g', message @ ..] => {
            let request = grpc::decode(Bytes::copy_from_slice(message));
            request
                .and_then(|request| grpc::parse(request, &SPEC))
                .map(|parsed| parsed.input)
        }
        [b'j', body @ ..] => json(body, None),
        [b'b', high, low, body @ ..] => {
            json(body, Some(u16::from_be_bytes([*high, *low]).to_string()))
        }
        _ => return,
    };
    match input {
        Ok(input) => check(&input),
        Err(ServeError::Invalid(message)) => assert!(message.len() < 1000, "{message}"),
        Err(error) => panic!("{error:?}"),
    }
});

fn json(body: &[u8], json_len: Option<String>) -> Result<InferenceInput, ServeError> {
    let parsed = rest::parse(&Bytes::copy_from_slice(body), json_len.as_deref(), &SPEC)?;
    Ok(parsed.input)
}

fn check(input: &InferenceInput) {
    assert!(input.count() > 0);
    match input {
        InferenceInput::Images { count, values } => assert_eq!(values.len(), count * 8),
        InferenceInput::Planes {
            count,
            height,
            width,
            pixels,
        } => {
            let found = match pixels {
                Pixels::Gray8(bytes) => bytes.len(),
                Pixels::Gray16(values) => values.len(),
                Pixels::Gray16Bytes(bytes) => bytes.len() / 2,
            };
            assert_eq!(found, count * 2 * *height as usize * *width as usize);
        }
        InferenceInput::Upload(_) => panic!("there are none in these protocols"),
    }
}

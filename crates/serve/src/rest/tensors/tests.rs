use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::*;
use crate::{InferenceInput, Pixels};
use rgby_imaging::Preprocess;
use rgby_score::model_metadata::{Precision, Provenance};

fn spec() -> ModelSpec {
    ModelSpec {
        arch: "tiny".into(),
        classes: vec!["a".into(), "b".into()],
        thresholds: vec![0.5; 2],
        preprocess: Preprocess::new(&["red", "green"], 2),
        provenance: Provenance::default(),
        precision: Precision::Fp32,
        embeddings: Some(3),
    }
}

/// Parses a body and checks the invariants of the result; returns whether it was accepted.
fn accepts(body: &[u8], header: Option<&str>) -> bool {
    let spec = spec();
    let parsed = match parse(&Bytes::copy_from_slice(body), header, &spec) {
        Ok(parsed) => parsed,
        Err(ServeError::Invalid(message)) => {
            assert!(message.len() < 1000, "{message}");
            return false;
        }
        Err(error) => panic!("{error:?}"),
    };
    assert!(parsed.input.count() > 0);
    // The memory of an accepted request is proportional to the size of its body.
    match parsed.input {
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
            assert_eq!(found, count * 2 * height as usize * width as usize);
        }
        InferenceInput::Upload(_) => panic!("this protocol has no uploads"),
    }
    true
}

fn bodies() -> Vec<(String, Vec<u8>)> {
    let image = json!({"id": "x", "parameters": {"timeout": 1000, "binary_data_output": true},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 2, 2, 2],
                    "data": [[0.5, -1, 2, 3], [1e-3, 0, 0, 0]]}],
        "outputs": [{"name": "embeddings"}, {"name": "probabilities",
                                             "parameters": {"binary_data": false}}]});
    let planes = json!({"inputs": [{"name": "planes", "datatype": "UINT8", "shape": [2, 1, 3],
                                    "data": [0, 255, 3, 4, 5, 6]}]});
    let binary = |name: &str, datatype: &str, shape: &[u64], size: usize| {
        json!({"inputs": [{"name": name, "datatype": datatype, "shape": shape,
                           "parameters": {"binary_data_size": size}}]})
    };
    let cases = [
        (image, 0),
        (planes, 0),
        (binary("image", "FP32", &[2, 2, 2, 2], 64), 64),
        (binary("planes", "UINT16", &[1, 2, 3, 1], 12), 12),
    ];
    let with_bytes = |(json, size): (Value, usize)| (json.to_string(), vec![7; size]);
    cases.map(with_bytes).into()
}

#[test]
fn damaged_bodies_are_refused_or_consistent() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let bodies = bodies();
    let mut accepted = 0;
    for round in 0..20_000 {
        let (json, bytes) = &bodies[round % bodies.len()];
        let mut body = [json.as_bytes(), bytes].concat();
        let mut length = json.len() as i64;
        if round < bodies.len() {
            assert!(accepts(&body, Some(&length.to_string())), "{json}");
            continue;
        }
        for _ in 0..rng.random_range(1..4) {
            if body.is_empty() {
                break;
            }
            let at = rng.random_range(0..body.len());
            match rng.random_range(0..6) {
                0 => body[at] = rng.random(),
                1 => {
                    body[at] = *b"0129-.e[]{},:\""
                        .get(rng.random_range(0..14))
                        .unwrap_or(&b'0');
                }
                2 => drop(body.remove(at)),
                3 => body.insert(at, body[at]),
                4 => body.truncate(at.max(1)),
                _ => length += rng.random_range(-3..4),
            }
        }
        let length = length.to_string();
        let header = rng.random_bool(0.7).then_some(&*length);
        accepted += usize::from(accepts(&body, header));
    }
    assert!(
        accepted > 100,
        "only {accepted} of the damaged bodies were accepted"
    );
}

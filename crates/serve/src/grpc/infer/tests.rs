use prost::Message;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::super::codec::decode;
use super::*;
use crate::{Floats, InferenceInput, Pixels};
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

/// A request with one tensor.
fn request(name: &str, datatype: &str, shape: &[i64]) -> ModelInferRequest {
    ModelInferRequest {
        id: "x".into(),
        inputs: vec![InferInputTensor {
            name: name.into(),
            datatype: datatype.into(),
            shape: shape.to_vec(),
            ..InferInputTensor::default()
        }],
        ..ModelInferRequest::default()
    }
}

fn raw(name: &str, datatype: &str, shape: &[i64], bytes: Vec<u8>) -> ModelInferRequest {
    ModelInferRequest {
        raw_input_contents: vec![bytes.into()],
        ..request(name, datatype, shape)
    }
}

fn typed(
    name: &str,
    datatype: &str,
    shape: &[i64],
    uint: &[u32],
    fp32: &[f32],
) -> ModelInferRequest {
    let mut request = request(name, datatype, shape);
    request.inputs[0].contents = Some(InferTensorContents {
        uint_contents: uint.to_vec(),
        fp32_contents: fp32.to_vec(),
    });
    request
}

fn good() -> [ModelInferRequest; 5] {
    let mut named = raw("image", "FP32", &[2, 2, 2, 2], vec![0; 64]);
    named.outputs = ["embeddings", "probabilities"].map(output).into();
    named.parameters = parameter("timeout", ParameterChoice::Int64Param(1000));
    [
        named,
        raw("planes", "UINT8", &[2, 1, 3], vec![7; 6]),
        raw("planes", "UINT16", &[1, 2, 3, 1], vec![7; 12]),
        typed("image", "FP32", &[1, 2, 2, 2], &[], &[0.5; 8]),
        typed("planes", "UINT16", &[2, 1, 2], &[0, 1, 65_535, 3], &[]),
    ]
}

fn output(name: &str) -> InferRequestedOutputTensor {
    InferRequestedOutputTensor {
        name: name.into(),
        ..InferRequestedOutputTensor::default()
    }
}

fn parameter(name: &str, choice: ParameterChoice) -> HashMap<String, InferParameter> {
    let parameter_choice = Some(choice);
    HashMap::from([(name.into(), InferParameter { parameter_choice })])
}

#[test]
fn valid_requests_are_parsed() {
    let parsed = good().map(|request| parse(request, &spec()).unwrap());
    let timeouts = parsed.iter().map(|parsed| parsed.timeout);
    assert!(timeouts.eq([Some(Duration::from_millis(1)), None, None, None, None]));
    assert_eq!(parsed[0].context.outputs, ["embeddings", "probabilities"]);
    assert_eq!(parsed[1].context.outputs, ["probabilities", "embeddings"]);
    assert_eq!(parsed[1].context.id, "x");
    let [_, _, _, floats, pixels] = parsed.map(|parsed| parsed.input);
    assert!(matches!(
        floats,
        InferenceInput::Images { count: 1, values: Floats::Values(values) } if values == [0.5; 8]
    ));
    assert!(matches!(
        pixels,
        InferenceInput::Planes { width: 2, height: 1, pixels: Pixels::Gray16(values), .. }
            if values == [0, 1, 65_535, 3]
    ));
}

#[test]
fn invalid_requests_are_refused_with_a_reason() {
    let image = |bytes| raw("image", "FP32", &[1, 2, 2, 2], vec![0; bytes]);
    let with = |change: fn(&mut ModelInferRequest)| {
        let mut request = image(32);
        change(&mut request);
        request
    };
    let cases = [
        (ModelInferRequest::default(), "one input"),
        (with(|r| r.inputs.push(r.inputs[0].clone())), "one input"),
        (
            with(|r| r.inputs[0].name = "pixels".into()),
            "unknown input",
        ),
        (with(|r| r.inputs[0].datatype = "FP64".into()), "FP32"),
        (with(|r| r.inputs[0].shape[0] = -1), "negative"),
        (
            with(|r| r.inputs[0].shape[0] = i64::MAX),
            "must be [n, 2, 2, 2]",
        ),
        (with(|r| r.inputs[0].shape = vec![1; 5000]), "…"),
        (with(|r| r.inputs[0].shape.clear()), "must be [n, 2, 2, 2]"),
        (with(|r| r.outputs.push(output("logits"))), "unknown output"),
        (
            with(|r| r.outputs = vec![output("embeddings"), output("embeddings")]),
            "twice",
        ),
        (
            with(|r| {
                r.outputs.push(output("embeddings"));
                r.outputs[0].parameters =
                    parameter("classification", ParameterChoice::Int64Param(3));
            }),
            "classification",
        ),
        (
            with(|r| {
                r.inputs[0].parameters = parameter(
                    "shared_memory_region",
                    ParameterChoice::StringParam("x".into()),
                );
            }),
            "shared memory",
        ),
        (
            with(|r| r.parameters = parameter("timeout", ParameterChoice::Int64Param(-5))),
            "microseconds",
        ),
        (
            with(|r| r.parameters = parameter("timeout", ParameterChoice::BoolParam(true))),
            "microseconds",
        ),
        (with(|r| r.raw_input_contents.clear()), "neither"),
        (with(|r| r.raw_input_contents.push(Bytes::new())), "has 2"),
        (
            with(|r| {
                r.inputs[0].contents = Some(InferTensorContents {
                    uint_contents: vec![1],
                    fp32_contents: vec![],
                });
            }),
            "both",
        ),
        (image(31), "31 bytes were sent"),
        (image(0), "0 bytes were sent"),
        (image(33), "requires 32"),
        (
            typed("image", "FP32", &[1, 2, 2, 2], &[], &[0.5; 7]),
            "7 values",
        ),
        (
            typed("image", "FP32", &[1, 2, 2, 2], &[1; 8], &[]),
            "fp32_contents",
        ),
        (
            typed("planes", "UINT8", &[2, 1, 1], &[], &[1.0; 2]),
            "uint_contents",
        ),
        (
            typed("planes", "UINT8", &[2, 1, 1], &[1; 3], &[]),
            "3 values",
        ),
        (
            typed("planes", "UINT8", &[2, 1, 1], &[1, 256], &[]),
            "from 0 to 255",
        ),
        (
            typed("planes", "UINT16", &[2, 1, 1], &[1, 65_536], &[]),
            "from 0 to 65535",
        ),
        (raw("planes", "UINT8", &[3, 1, 1], vec![0; 3]), "red, green"),
    ];
    for (request, expected) in cases {
        let error = parse(request.clone(), &spec()).unwrap_err().to_string();
        assert!(error.contains(expected), "{request:?}: {error}");
        assert!(error.len() < 500, "{error}");
    }
}

#[test]
fn damaged_messages_are_refused_or_consistent() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let messages = good().map(|request| request.encode_to_vec());
    let mut accepted = 0;
    for round in 0..20_000 {
        let mut message = messages[round % messages.len()].clone();
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(0..message.len());
            match rng.random_range(0..4) {
                0 => message[at] = rng.random(),
                1 => message[at] ^= 1 << rng.random_range(0..8),
                2 => message.insert(at, message[at]),
                _ => message.truncate(at.max(1)),
            }
        }
        let request = decode::<ModelInferRequest>(message.into());
        if let Ok(parsed) = request.and_then(|request| parse(request, &spec())) {
            assert_consistent(&parsed.input);
            accepted += 1;
        }
    }
    assert!(accepted > 100, "only {accepted} were accepted");
}

/// The memory of an accepted request is proportional to the size of its message.
fn assert_consistent(input: &InferenceInput) {
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
        InferenceInput::Upload(_) => panic!("this protocol has no uploads"),
    }
}

#[test]
fn call_timeouts_are_parsed_from_metadata() {
    let parse = |text: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().unwrap());
        call_timeout(&metadata)
    };
    assert_eq!(call_timeout(&MetadataMap::new()), Ok(None));
    for (text, time) in [
        ("1H", Duration::from_hours(1)),
        ("2M", Duration::from_mins(2)),
        ("3S", Duration::from_secs(3)),
        ("99999999m", Duration::from_millis(99_999_999)),
        ("0u", Duration::ZERO),
        ("7n", Duration::from_nanos(7)),
    ] {
        assert_eq!(parse(text), Ok(Some(time)), "{text}");
    }
    for bad in [
        "",
        "S",
        "1",
        "1s",
        "-1S",
        "+1S",
        "1.5S",
        "100000000n",
        "1 S",
    ] {
        assert_eq!(parse(bad).unwrap_err().cause(), "invalid", "{bad}");
    }
}

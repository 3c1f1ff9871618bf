//! A model without weights, and models that are wrong in one way each.

use std::fs;
use std::path::PathBuf;

use rgby_graph::{AttributeProto, AttributeType};

use super::*;
use crate::model_metadata::{Precision, Provenance};
use rgby_imaging::{CHANNELS, Preprocess};

/// Side of the tiny model's input.
pub(crate) const SIDE: usize = 4;

pub(crate) fn spec() -> ModelSpec {
    ModelSpec {
        arch: "tiny".into(),
        classes: CHANNELS.map(String::from).to_vec(),
        thresholds: vec![0.5; 4],
        preprocess: Preprocess::new(&CHANNELS, SIDE as u32),
        provenance: Provenance::default(),
        precision: Precision::Fp32,
        embeddings: None,
    }
}

/// One class a channel: the sigmoid of the channel's mean.
pub(crate) fn tiny_model() -> ModelProto {
    let mut graph = GraphProto::new();
    graph.name = "tiny".into();
    graph
        .node
        .push(node("GlobalAveragePool", INPUT_NAME, "pooled"));
    graph.node.push(node("Flatten", "pooled", "flat"));
    graph.node.push(node("Sigmoid", "flat", OUTPUT_NAME));
    graph
        .input
        .push(value(INPUT_NAME, &[None, Some(4), Some(SIDE), Some(SIDE)]));
    graph.output.push(value(OUTPUT_NAME, &[None, Some(4)]));
    let mut model = ModelProto::new();
    model.ir_version = 8;
    model.opset_import.push(<_>::default());
    model.opset_import[0].version = 18;
    model.graph = Some(graph).into();
    set_metadata(&mut model, &serde_json::to_string(&spec()).unwrap());
    model
}

fn set_metadata(model: &mut ModelProto, text: &str) {
    model.metadata_props.clear();
    model.metadata_props.push(<_>::default());
    model.metadata_props[0].key = METADATA_KEY.into();
    model.metadata_props[0].value = text.into();
}

fn node(op: &str, input: &str, output: &str) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = op.into();
    node.input.push(input.into());
    node.output.push(output.into());
    node
}

fn value(name: &str, shape: &[Option<usize>]) -> ValueInfoProto {
    let mut value = ValueInfoProto::new();
    value.name = name.into();
    let tensor = value.type_.mut_or_insert_default().mut_tensor_type();
    tensor.elem_type = FLOAT;
    let dims = &mut tensor.shape.mut_or_insert_default().dim;
    for size in shape {
        dims.push(<_>::default());
        match (size, dims.last_mut()) {
            (Some(size), Some(dim)) => dim.set_dim_value(i64::try_from(*size).unwrap()),
            (None, Some(dim)) => dim.set_dim_param("N".into()),
            (_, None) => unreachable!(),
        }
    }
    value
}

/// The tiny model with another input size and spec.
pub(crate) fn other_model(side: usize, change: impl FnOnce(&mut ModelSpec)) -> ModelProto {
    let mut model = tiny_model();
    let mut spec = spec();
    spec.preprocess.size = side as u32;
    change(&mut spec);
    let graph = model.graph.as_mut().unwrap();
    graph.input[0] = value(INPUT_NAME, &[None, Some(4), Some(side), Some(side)]);
    set_metadata(&mut model, &serde_json::to_string(&spec).unwrap());
    model
}

/// Writes a model to `model.onnx` in `dir`.
pub(crate) fn write(dir: &Path, model: &ModelProto) -> PathBuf {
    write_as(dir, "model.onnx", model)
}

/// Writes a model to a file in `dir`.
pub(crate) fn write_as(dir: &Path, name: &str, model: &ModelProto) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    path
}

/// The message for a tiny model that was changed.
fn refused(change: impl FnOnce(&mut ModelProto)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let mut model = tiny_model();
    change(&mut model);
    let error = ModelFile::open(&write(dir.path(), &model))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.onnx: ") && error.contains("rgby export"),
        "{error}"
    );
    error
}

/// The message for a tiny model whose metadata was changed.
fn refused_spec(change: impl FnOnce(&mut ModelSpec)) -> String {
    let mut spec = spec();
    change(&mut spec);
    refused(|model| set_metadata(model, &serde_json::to_string(&spec).unwrap()))
}

#[test]
fn opens_a_valid_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), &tiny_model());
    let model = ModelFile::open(&path).unwrap();
    assert_eq!(**model.spec(), spec());
    assert_eq!(model.path(), path);
    assert_eq!(model.bytes().unwrap(), fs::read(&path).unwrap());
    model.check_unchanged().unwrap();
    fs::write(&path, "another").unwrap();
    for error in [
        model.bytes().unwrap_err(),
        model.check_unchanged().unwrap_err(),
    ] {
        assert!(error.to_string().contains("was changed"), "{error}");
    }
}

#[test]
fn rejects_files_that_are_not_onnx() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.onnx");
    let whole = tiny_model().write_to_bytes().unwrap();
    for bytes in [
        &b""[..],
        b"This is not a model.\n",
        &[0xff; 64],
        &whole[..whole.len() / 2],
    ] {
        fs::write(&path, bytes).unwrap();
        let error = ModelFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("is not an ONNX model"), "{error}");
    }
    let error = ModelFile::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is not a file"), "{error}");
    let error = ModelFile::open(&dir.path().join("none.onnx"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("none.onnx: cannot be read"), "{error}");
    assert!(
        refused(|model| model.graph.as_mut().unwrap().node.clear())
            .contains("is not an ONNX model")
    );
}

#[test]
fn rejects_missing_or_invalid_metadata() {
    let error = refused(|model| model.metadata_props.clear());
    assert!(error.contains("has no `rgby` metadata"), "{error}");
    for text in ["", "not json", "[1]", "{\"arch\": \"tiny\"}"] {
        let error = refused(|model| set_metadata(model, text));
        assert!(error.contains("metadata is not valid"), "{error}");
    }
    let error = refused_spec(|spec| spec.thresholds[2] = 1.5);
    assert!(error.contains("`thresholds` contains 1.5"), "{error}");
}

#[test]
fn rejects_metadata_that_contradicts_the_graph() {
    let error = refused_spec(|spec| spec.preprocess.size = 64);
    assert!(
        error.contains("[N, 4, 4, 4]") && error.contains("[N, 4, 64, 64]"),
        "{error}"
    );
    let error = refused_spec(|spec| spec.preprocess = Preprocess::new(&CHANNELS[..3], 4));
    assert!(error.contains("[N, 3, 4, 4]"), "{error}");
    let error = refused_spec(|spec| {
        spec.classes.truncate(3);
        spec.thresholds.truncate(3);
    });
    assert!(
        error.contains("`probabilities` is [N, 4]") && error.contains("[N, 3]"),
        "{error}"
    );
}

#[test]
fn rejects_unsuitable_inputs_and_outputs() {
    let graph = |change: fn(&mut GraphProto)| refused(|m| change(m.graph.as_mut().unwrap()));
    assert!(graph(|g| g.input[0].name = "x".into()).contains("is called `x`, not `image`"));
    assert!(graph(|g| g.input.push(value("y", &[None]))).contains("has 2 inputs"));
    assert!(graph(|g| g.input.clear()).contains("has 0 inputs"));
    assert!(
        graph(|g| g.output[0].name = "z".into()).contains("no output `probabilities`, only `z`")
    );
    let error = graph(|g| g.input[0] = value(INPUT_NAME, &[Some(8), Some(4), Some(4), Some(4)]));
    assert!(error.contains("[8, 4, 4, 4]"), "{error}");
    let error = graph(|g| {
        g.input[0] = ValueInfoProto {
            name: INPUT_NAME.into(),
            ..<_>::default()
        }
    });
    assert!(error.contains("is [] of another type"), "{error}");
}

#[test]
fn rejects_external_data_anywhere_in_the_model() {
    let outside = || {
        let mut tensor = TensorProto::new();
        tensor.name = "w".into();
        tensor.data_location = protobuf::EnumOrUnknown::from_i32(EXTERNAL);
        tensor
    };
    let attribute = |change: &dyn Fn(&mut AttributeProto)| {
        let mut attribute = AttributeProto::new();
        attribute.name = "value".into();
        change(&mut attribute);
        attribute
    };
    let tensor = || {
        attribute(&|a| {
            a.type_ = AttributeType::TENSOR.into();
            a.t = Some(outside()).into();
        })
    };
    let nested = || {
        attribute(&|a| {
            let mut graph = GraphProto::new();
            graph.initializer.push(outside());
            a.g = Some(graph).into();
        })
    };
    let hide: [&dyn Fn(&mut GraphProto); 4] = [
        &|graph| graph.initializer.push(outside()),
        &|graph| graph.node[0].attribute.push(tensor()),
        &|graph| graph.node[0].attribute.push(nested()),
        &|graph| {
            let mut tensor = outside();
            tensor.data_location = <_>::default();
            tensor.external_data.push(<_>::default());
            graph.initializer.push(tensor);
        },
    ];
    for hide in hide {
        let error = refused(|model| hide(model.graph.as_mut().unwrap()));
        assert!(
            error.contains("tensor `w` is stored in another file"),
            "{error}"
        );
    }
    let error = refused(|model| {
        model.functions.push(<_>::default());
        model.functions[0].node.push(NodeProto {
            attribute: vec![tensor()],
            ..<_>::default()
        });
    });
    assert!(
        error.contains("tensor `w` is stored in another file"),
        "{error}"
    );
}

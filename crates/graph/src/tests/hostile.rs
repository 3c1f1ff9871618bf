//! Files made to break the reader: each is refused with a sentence that says what is wrong.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use onnx_ir::{AttributeProto, Message, ValueInfoProto};

use crate::tensor::set_values;
use crate::view::View;
use crate::{GraphError, GraphProto, ModelProto, NodeProto, TensorProto, check, read, read_bytes};

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    let mut node = NodeProto::new();
    node.op_type = op.into();
    node.name = format!("/{output}");
    node.input = inputs.iter().map(ToString::to_string).collect();
    node.output.push(output.into());
    node
}

fn value(name: &str) -> ValueInfoProto {
    let mut value = ValueInfoProto::new();
    value.name = name.into();
    value
}

pub(super) fn weight(name: &str, dims: &[i64]) -> TensorProto {
    let mut tensor = TensorProto::new();
    tensor.name = name.into();
    tensor.dims = dims.to_vec();
    let count = dims.iter().product::<i64>() as usize;
    set_values(&mut tensor, &vec![1.0; count]);
    tensor
}

/// A convolution and its bias; `graph.node[1]` is a constant.
pub(super) fn model() -> ModelProto {
    let mut model = ModelProto::new();
    model.opset_import.push(<_>::default());
    model.opset_import[0].version = 17;
    let graph = model.graph.mut_or_insert_default();
    graph.input.push(value("image"));
    graph.output.push(value("sum"));
    graph.initializer.push(weight("w", &[2, 3, 1, 1]));
    graph.node = vec![
        node("Conv", &["image", "w"], "a"),
        node("Constant", &[], "one"),
        node("Add", &["a", "one"], "sum"),
    ];
    let mut attribute = AttributeProto::new();
    attribute.name = "value".into();
    attribute.t = Some(weight("", &[2, 1, 1])).into();
    graph.node[1].attribute.push(attribute);
    model
}

pub(super) fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.mut_or_insert_default()
}

pub(super) fn bytes(model: &ModelProto) -> Vec<u8> {
    model.write_to_bytes().unwrap()
}

/// Why the edited model is refused, weights included.
pub(super) fn refused(edit: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = model();
    edit(&mut model);
    read_bytes(&bytes(&model))
        .and_then(|model| check::check_weights(&model.graph))
        .expect_err("it must be refused")
        .to_string()
}

#[track_caller]
pub(super) fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn the_model_is_accepted_as_it_is() {
    let read = read_bytes(&bytes(&model())).unwrap();
    check::check_weights(&read.graph).unwrap();
    assert_eq!(read, model());
}

#[test]
fn a_file_cut_anywhere_is_refused_or_read_without_panic() {
    let whole = bytes(&model());
    let mut accepted = 0;
    for length in 0..whole.len() {
        accepted += usize::from(read_bytes(&whole[..length]).is_ok());
    }
    // The operator set comes after the graph, so no shorter file is a model.
    assert_eq!(accepted, 0);
}

#[test]
fn any_byte_may_be_any_other() {
    let whole = bytes(&model());
    for at in 0..whole.len() {
        for byte in [0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 1, whole[at] ^ 0x80] {
            let mut changed = whole.clone();
            changed[at] = byte;
            if let Ok(model) = read_bytes(&changed) {
                let _ = check::check_weights(&model.graph);
            }
        }
    }
}

#[test]
fn lengths_that_promise_too_much_are_refused() {
    // Field 7 of a model, its graph, then of 2^62 bytes; and of 2^70, which is no length at all.
    let huge = [0x3a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
    let message = read_bytes(&huge).unwrap_err().to_string();
    says(
        &message,
        &["4611686018427387904 bytes are promised", ".onnx"],
    );
    let more = [&[0x3a], &[0xff; 10][..], &[1]].concat();
    says(
        &read_bytes(&more).unwrap_err().to_string(),
        &["more than 64 bits"],
    );
    // A graph whose node is longer than the graph.
    let nested = [0x3a, 3, 0x0a, 100, 0, 0, 0, 0];
    says(
        &read_bytes(&nested).unwrap_err().to_string(),
        &["100 bytes are promised"],
    );
}

#[test]
fn small_files_that_grow_in_memory_are_refused() {
    let field = |tag: u8, content: &[u8]| {
        let mut bytes = vec![tag];
        let mut length = content.len();
        while length > 0x7f {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        [&bytes, content].concat()
    };
    // Nodes of two bytes each: 2 MB that would take hundreds in memory.
    let nodes = field(0x3a, &[0x0a, 0].repeat(1 << 20));
    says(
        &read_bytes(&nodes).unwrap_err().to_string(),
        &["bytes of structure", "at most"],
    );
    let names = field(0x3a, &field(0x0a, &[0x0a, 0].repeat(9 << 20)));
    says(
        &read_bytes(&names).unwrap_err().to_string(),
        &["bytes of structure"],
    );
    // Fields that nobody knows are kept, each in a table entry of its own.
    let unknown: Vec<u8> = (1_u32 << 20..1 << 21)
        .flat_map(|tag| {
            [
                tag as u8 & 0x78 | 0x80,
                (tag >> 7) as u8 | 0x80,
                (tag >> 14) as u8,
                0,
            ]
        })
        .collect();
    let message = read_bytes(&unknown).unwrap_err().to_string();
    says(&message, &["bytes of structure"]);
    // An int64 takes one byte when packed, eight in memory.
    let packed = field(0x3a, &field(0x2a, &field(0x3a, &vec![0; (256 << 20) + 1])));
    says(
        &read_bytes(&packed).unwrap_err().to_string(),
        &["bytes of typed weights"],
    );
}

#[test]
fn deep_nesting_is_refused() {
    // A graph in an attribute of a node of a graph, and so on, a hundred thousand times.
    let mut bytes = Vec::new();
    for tag in [0x32, 0x2a, 0x0a].iter().cycle().take(300_001) {
        let mut length = bytes.len();
        let mut varint = Vec::new();
        while length > 0x7f {
            varint.push(length as u8 | 0x80);
            length >>= 7;
        }
        varint.push(length as u8);
        // Built from the inside out, and so backwards.
        varint.reverse();
        bytes.extend(varint);
        bytes.push(*tag);
    }
    *bytes.last_mut().unwrap() = 0x3a;
    bytes.reverse();
    let message = read_bytes(&bytes).unwrap_err().to_string();
    says(&message, &["is not an ONNX model", "recursion limit"]);
}

#[test]
fn a_graph_that_contradicts_itself_is_refused() {
    let message = refused(|m| graph(m).node[0].input[0] = "sum".into());
    says(&message, &["depends on itself"]);
    let message = refused(|m| {
        graph(m).node.push(node("Identity", &["y"], "x"));
        graph(m).node.push(node("Identity", &["x"], "y"));
    });
    says(&message, &["depends on itself"]);
    let message = refused(|m| graph(m).node[0].input[1] = "gone".into());
    says(&message, &["nothing defines `gone`"]);
    let message = refused(|m| graph(m).output[0].name = "gone".into());
    says(&message, &["nothing defines `gone`"]);
    says(&refused(|m| graph(m).output.clear()), &["no output"]);
    says(&refused(|m| graph(m).node.clear()), &["no graph"]);
    says(&refused(|m| m.graph.clear()), &["no graph"]);
}

#[test]
fn a_name_that_is_given_twice_is_refused() {
    let twice = "`a` is defined twice";
    says(
        &refused(|m| graph(m).node[2].output.push("a".into())),
        &[twice],
    );
    says(
        &refused(|m| graph(m).initializer.push(weight("a", &[1]))),
        &[twice],
    );
    says(&refused(|m| graph(m).input.push(value("a"))), &[twice]);
    let message = refused(|m| graph(m).input.push(value("image")));
    says(&message, &["`image` is defined twice"]);
    let message = refused(|m| graph(m).initializer[0].name.clear());
    says(&message, &["has no name"]);
    let message = refused(|m| {
        let attribute = graph(m).node[1].attribute[0].clone();
        graph(m).node[1].attribute.push(attribute);
    });
    says(&message, &["Constant (node `/one`)", "`value` twice"]);
    // Files of the first versions list their weights among the inputs too.
    let mut older = model();
    graph(&mut older).input.push(value("w"));
    read_bytes(&bytes(&older)).unwrap();
}

#[test]
fn operator_sets_are_those_from_9_to_22() {
    for version in [i64::MIN, 0, 8, 23, 99, i64::MAX] {
        let message = refused(|m| m.opset_import[0].version = version);
        says(&message, &[&format!("operator set {version}"), "9 to 22"]);
    }
    says(
        &refused(|m| m.opset_import.clear()),
        &["does not name the standard"],
    );
    says(
        &refused(|m| m.opset_import[0].domain = "com.microsoft".into()),
        &["does not name the standard"],
    );
    says(
        &refused(|m| m.opset_import.push(m.opset_import[0].clone())),
        &["the standard operator set twice"],
    );
    for version in [9, 22] {
        let mut model = model();
        model.opset_import[0].version = version;
        read_bytes(&bytes(&model)).unwrap();
    }
}

#[test]
fn what_is_not_a_plain_network_is_refused_by_name() {
    let message = refused(|m| graph(m).node[0].domain = "com.microsoft".into());
    says(
        &message,
        &["Conv (node `/a`)", "`com.microsoft`", "re-export"],
    );
    for op in ["If", "Loop", "Scan"] {
        let message = refused(|m| graph(m).node[0].op_type = op.into());
        says(&message, &["control flow", &format!("{op} (node `/a`)")]);
    }
    let message = refused(|m| {
        let mut branch = AttributeProto::new();
        branch.name = "body".into();
        branch.g = Some(GraphProto::new()).into();
        graph(m).node[0].attribute.push(branch);
    });
    says(&message, &["control flow", "Conv (node `/a`)"]);
    let message = refused(|m| {
        m.functions.push(<_>::default());
        m.functions[0].name = "BatchNormTraining".into();
    });
    says(&message, &["the function `BatchNormTraining`", "inline"]);
    let message = refused(|m| {
        graph(m).sparse_initializer.push(<_>::default());
        let sparse = &mut graph(m).sparse_initializer[0];
        sparse.values = Some(weight("sparse", &[1])).into();
    });
    says(&message, &["sparse initializer `sparse`"]);
    let message = refused(|m| {
        graph(m).node[1].attribute[0].sparse_tensor = Some(<_>::default()).into();
    });
    says(&message, &["sparse tensor", "/one"]);
}

#[test]
fn more_than_any_network_has_is_refused() {
    let message = refused(|m| {
        let inputs = vec!["a".to_owned(); 1025];
        graph(m).node[2].input = inputs;
    });
    says(&message, &["1025 inputs of one node", "at most 1024"]);
    let message = refused(|m| {
        let relu = node("Relu", &["a"], "");
        graph(m).node.extend(std::iter::repeat_n(relu, 100_000));
    });
    says(&message, &["100003 nodes", "at most 100000"]);
    let message = refused(|m| {
        let empty = TensorProto::new();
        graph(m)
            .initializer
            .extend(std::iter::repeat_n(empty, 100_000));
    });
    says(&message, &["100001 initializers"]);
}

#[test]
fn long_chains_take_linear_time() {
    let mut long = model();
    let nodes = &mut graph(&mut long).node;
    // Backwards, so that each is met before what it stands for.
    for index in (1..90_000).rev() {
        let name = format!("i{index}");
        nodes.push(node("Identity", &[&format!("i{}", index - 1)], &name));
    }
    nodes.push(node("Relu", &["a"], "i0"));
    // Every input of every node names one of many inputs of the graph.
    graph(&mut long)
        .input
        .extend((0..90_000).map(|index| value(&format!("x{index}"))));
    for index in 0..9 {
        let inputs: Vec<String> = (0..1000).map(|at| format!("x{}", 89_000 + at)).collect();
        let mut concat = node("Concat", &[], &format!("c{index}"));
        concat.input = inputs;
        graph(&mut long).node.push(concat);
    }
    let started = Instant::now();
    let read = read_bytes(&bytes(&long)).unwrap();
    let view = View::new(&read.graph).unwrap();
    assert_eq!(view.resolve("i89999"), "i0");
    assert_eq!(view.order().unwrap().len(), read.graph.node.len());
    // A quadratic walk takes minutes.
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn a_file_of_3_gb_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    File::create(&path).unwrap().set_len(3 << 30).unwrap();
    let started = Instant::now();
    let message = read(&path).unwrap_err().to_string();
    says(&message, &["3221225472 bytes long"]);
    assert!(started.elapsed() < Duration::from_secs(1));
    says(
        &read(folder.path()).unwrap_err().to_string(),
        &["not a regular file"],
    );
    assert!(matches!(
        read(Path::new("/no/such/file")),
        Err(GraphError::Io(_))
    ));
}
